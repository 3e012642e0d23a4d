import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.precision import compare, main
from helium_jax import Logits


def logits(text, audio):
    return Logits(
        text=text,
        text_mask=jnp.array([[True, True, False]]),
        audio=audio,
        audio_mask=jnp.ones((1, 2, 3), bool).at[0, 1, 0].set(False),
    )


def test_costs_are_means_over_known_positions():
    keys = jax.random.split(jax.random.key(0), 4)
    p_text, q_text = (jax.random.normal(key, (1, 3, 5)) for key in keys[:2])
    p_audio, q_audio = (jax.random.normal(key, (1, 2, 3, 4)) for key in keys[2:])
    codes = jnp.array([[[1, 4, -1], [0, 1, 2], [-1, 3, 0], [3, 3, 3]]])
    got = compare(logits(p_text, p_audio), logits(q_text, q_audio), codes)

    def distribution(x):
        e = np.exp(np.asarray(x, np.float64))
        return e / e.sum(-1, keepdims=True)

    p, q = distribution(p_text)[0, :2], distribution(q_text)[0, :2]
    assert got["text"].positions == 2 and got["audio"].positions == 5
    assert got["text"].kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    change = [np.log(q[0, 1] / p[0, 1]), np.log(q[1, 4] / p[1, 4])]
    assert got["text"].log_prob == pytest.approx(np.mean(change), rel=1e-4)
    same = np.asarray(p_audio[0].argmax(-1) == q_audio[0].argmax(-1))
    assert got["audio"].agreement == pytest.approx((same.sum() - same[1, 0]) / 5)
    nothing = compare(logits(p_text, p_audio), logits(p_text, p_audio), codes)
    assert (nothing["audio"].kl, nothing["audio"].agreement) == (0, 1)


@pytest.mark.slow
def test_int8_and_bf16_keep_the_embedded_models_probabilities(tmp_path, capsys):
    assert main(["--frames", "60", "--json", str(tmp_path / "cost.json")]) == 0
    costs = json.loads((tmp_path / "cost.json").read_text())["costs"]
    for name, limit in (("bf16", 1e-3), ("int8", 1e-2)):
        for tokens in ("text", "audio"):
            assert 0 < costs[name][tokens]["kl"] < limit, (name, tokens)
            assert costs[name][tokens]["agreement"] > 0.9, (name, tokens)
    assert costs["int8"]["audio"]["kl"] > costs["bf16"]["audio"]["kl"]
    assert "int8    text" in capsys.readouterr().out
