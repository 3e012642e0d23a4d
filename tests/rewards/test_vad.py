import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rewards import initial_state, load_vad, speech_probabilities, stream_probabilities
from rewards.extract_silero import wheel_file

LIMIT = 5e-6  # the reference's own back ends differ by 3e-6


@pytest.fixture(scope="module")
def params():
    return load_vad()


@pytest.fixture(scope="module")
def recording(golden):
    return golden("silero_vad").tensors


def audio(recording, name):
    return recording[f"inputs/{name}"].astype(np.float32) / 32768


def probabilities(params, *rows):
    """Of one or two rows, padded to one shape, so that it is compiled once; padding is exact."""
    batch = np.zeros((2, 159_700), np.float32)
    for row, values in zip(batch, rows, strict=False):
        row[: len(values)] = values
    result = np.asarray(speech_probabilities(params, jnp.asarray(batch)))
    return [result[row, : -(-len(values) // 512)] for row, values in enumerate(rows)]


def test_number_of_parameters(params):
    # 309,633 published, two columns of zeros of the STFT and one of two summed biases less.
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count == 309_633 - 2 * 256 - 512


def test_equals_the_recorded_reference(params, recording):
    """The two rows are three blocks of hops: the joints must not show."""
    names = ("speech", "noise")
    results = probabilities(params, *(audio(recording, name) for name in names))
    for name, result in zip(names, results, strict=True):
        expected = recording[f"expected/{name}/probabilities"]
        np.testing.assert_allclose(result, expected, rtol=0, atol=LIMIT)
        assert ((result >= 0.5) == (expected >= 0.5)).all()


def test_the_recording_is_a_test(recording):
    speech = recording["expected/speech/probabilities"]
    assert (speech > 0.9).sum() > 100
    assert (speech < 0.1).sum() > 30


def test_blocks_of_a_recording_give_what_the_whole_gives(params, recording):
    speech, noise = audio(recording, "speech"), audio(recording, "noise")
    rows = np.zeros((2, 159_700), np.float32)
    rows[0, : len(speech)], rows[1, : len(noise)] = speech, noise
    state, found = initial_state(params, 2), []
    for start in range(0, rows.shape[1], 80 * 512):
        block = np.zeros((2, 80 * 512), np.float32)
        part = rows[:, start : start + block.shape[1]]
        block[:, : part.shape[1]] = part
        state, block_probabilities = stream_probabilities(params, state, jnp.asarray(block))
        found.append(block_probabilities)
    whole = np.asarray(speech_probabilities(params, jnp.asarray(rows)))
    np.testing.assert_allclose(
        np.concatenate(found, axis=1)[:, : whole.shape[1]], whole, rtol=0, atol=1e-6
    )


def test_rows_are_independent(params, recording):
    speech, noise = audio(recording, "speech"), audio(recording, "noise")
    together = probabilities(params, noise, speech)
    for result, alone in zip(together, (noise, speech), strict=True):
        np.testing.assert_allclose(result, probabilities(params, alone)[0], rtol=0, atol=LIMIT)


def test_causal(params, recording):
    speech = audio(recording, "speech")
    other = np.concatenate([speech[:70_144], speech[:-70_144]])  # the same for 137 hops
    first, second = probabilities(params, speech, other)
    np.testing.assert_allclose(first[:137], second[:137], rtol=0, atol=LIMIT)
    assert np.abs(first[137:] - second[137:]).max() > 0.5


def test_the_last_hop_is_completed_with_zeros(params, recording):
    start = audio(recording, "speech")[5_000:6_000]
    alone = np.asarray(speech_probabilities(params, jnp.asarray(start[None])))
    np.testing.assert_allclose(alone[0], probabilities(params, start)[0], rtol=0, atol=LIMIT)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 200_000])
def test_one_value_a_hop(params, samples):
    shape = jax.ShapeDtypeStruct((3, samples), jnp.float32)
    result = jax.eval_shape(speech_probabilities, params, shape)
    assert result.shape == (3, -(-samples // 512))


def test_no_audio_is_an_error(params):
    with pytest.raises(ValueError, match="0 samples"):
        speech_probabilities(params, jnp.zeros((1, 0)))


@pytest.mark.parity
def test_equals_the_live_reference(params):
    onnxruntime = pytest.importorskip("onnxruntime")
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed")
    session = onnxruntime.InferenceSession(str(wheel_file()), providers=["CPUExecutionProvider"])

    rng = np.random.default_rng(2)
    samples = 5 * 16_000 + 123
    buzz = np.sign(np.sin(2 * np.pi * 120 * np.arange(samples) / 16_000))  # voice-like pulses
    envelope = np.repeat(rng.uniform(0, 0.5, samples // 1600 + 1), 1600)[:samples]
    pcm = (buzz * envelope + 0.01 * rng.standard_normal(samples)).astype(np.float32)

    hops = np.pad(pcm, (64, -samples % 512))
    state, expected = np.zeros((2, 1, 128), np.float32), []
    for start in range(0, len(hops) - 64, 512):
        hop = {"input": hops[None, start : start + 576], "state": state, "sr": np.array(16_000)}
        probability, state = session.run(None, hop)
        expected.append(probability[0, 0])
    result = probabilities(params, pcm)[0]
    np.testing.assert_allclose(result, np.array(expected), rtol=0, atol=LIMIT)
    assert ((result >= 0.5) == (np.array(expected) >= 0.5)).all()
