"""Held-out segments under several policies: equal draws, exact divergence, audio of what scored."""

import jax
import numpy as np
import pytest

from convert import load_moshi
from grpo.config import GRPOConfig
from grpo.extract import ExtractConfig, extract
from grpo.heldout import HeldOut, by_axis
from grpo.segments import SegmentConfig
from layers_jax import Precision
from moshi_jax.sample import conversation_path
from moshi_jax.stream import embedded_checkpoint
from rewards import detect_speech, load_vad

SHORT = ExtractConfig(axes=("pause", "turn"), segments=SegmentConfig(max_segment_s=8.0))


@pytest.mark.slow
def test_policies_differ_by_their_parameters_and_by_nothing_else(tmp_path):
    extract(conversation_path(), tmp_path / "segments", SHORT)
    config = GRPOConfig(
        checkpoint=embedded_checkpoint(),
        segments=tmp_path / "segments",
        run_dir=tmp_path / "run",
        devices=2,
        prefix_silence_s=0.8,
        bucket_frames=(112,),
        precision="f32",
        axes=("pause", "turn"),
        no_context=True,
        no_judge=True,
    )
    held_out = HeldOut(
        config, tmp_path / "segments", per_axis=2, rollouts=3, scratch=tmp_path / "scratch"
    )
    _, params = load_moshi(embedded_checkpoint(), precision=Precision.f32())
    silent = jax.tree.map(lambda leaf: leaf, params)
    silent["text_head"] = {"kernel": params["text_head"]["kernel"].at[:, 3].multiply(4.0)}

    base, same, other = (held_out.score(policy) for policy in (None, params, silent))
    assert [score.axis for score in base].count("turn") == 2 and len(base) == 4
    for one, two, three in zip(base, same, other, strict=True):
        assert one.segment_id == two.segment_id == three.segment_id
        assert one.rewards.keys() == three.rewards.keys()
        for name, values in one.rewards.items():
            assert values.shape == (3,)
            np.testing.assert_array_equal(values, two.rewards[name])
        assert one.agent == two.agent
        assert one.kl == 0.0 and two.kl == pytest.approx(0.0, abs=1e-6) and three.kl > 0.01
    assert any(one.agent != three.agent for one, three in zip(base, other, strict=True))

    values, conversations = by_axis(base, "turn", "turn_taking")
    own = [score.rewards["turn_taking"].mean() for score in base if score.axis == "turn"]
    np.testing.assert_allclose(values, own)
    assert conversations == ["conversation.flac", "conversation.flac"]

    wanted = base[-1]  # the audio that can be listened to is that which was scored
    (sample,) = held_out.samples(None, {wanted.segment_id})
    (heard,) = detect_speech(load_vad(), sample.agent[None], sample_rate=24_000)
    start_s = 0.8
    np.testing.assert_allclose(
        [(a - start_s, b - start_s) for a, b in heard], wanted.agent, atol=0.05
    )
    assert not (tmp_path / "run").exists()
