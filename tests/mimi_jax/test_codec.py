import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from layers_jax import reset_rows
from layers_jax.functional import abstract
from mimi_jax import (
    Mimi,
    MimiConfig,
    QuantizerConfig,
    SeanetConfig,
    decode,
    decode_step,
    encode,
    encode_step,
    init_state,
    nano,
)
from mimi_jax.codec import check_frame

NEAR_TIE = 1e-3
PCM_TOLERANCE = 1e-5


def sessions(mimi, params, pcm, codes, run_mask, reset_mask):
    """Calls one after the other: encode a frame, decode recorded codes; resets come first."""
    fresh = init_state(mimi, pcm.shape[1])

    def body(state, call):
        pcm, codes, run, reset = call
        state = reset_rows(reset, fresh, state)
        state, encoded = encode_step(mimi, params, state, pcm, run)
        state, audio = decode_step(mimi, params, state, codes, run)
        return state, (encoded, audio)

    return jax.lax.scan(body, fresh, (pcm, codes, run_mask, reset_mask))[1]


@pytest.fixture(scope="module")
def kyutai(recorded):
    return recorded("mimi_kyutai")


@pytest.fixture(scope="module")
def batch_of_three(kyutai):
    """One program for all recorded streams of the reference: 60 calls of three rows."""
    codec, _ = kyutai
    return codec.compiled(sessions)


@pytest.fixture(scope="module")
def whole(kyutai):
    """`whole(pcm) -> codes, audio`: the full form, the decoder on the recorded codes."""
    codec, tensors = kyutai

    def run(mimi, params, pcm, codes):
        return encode(mimi, params, pcm, mode="full"), decode(mimi, params, codes, mode="full")

    both, codes = codec.compiled(run), tensors["expected/full/codes"].T[None]
    return lambda pcm: tuple(np.asarray(out)[0] for out in both(pcm.reshape(1, -1), codes))


def streams(tensors):
    """The recorded stream in each of three rows, never masked nor reset."""
    three = [np.repeat(x[:, None], 3, 1) for x in (tensors["inputs/pcm"], tensors["codes"])]
    return (*three, np.ones((60, 3), bool), np.zeros((60, 3), bool))


def test_streamed_codes_and_audio_are_those_of_the_reference(kyutai, batch_of_three):
    tensors = kyutai[1]
    expected = {k: tensors[f"expected/stream/{k}"] for k in ("codes", "pcm", "margin")}
    assert expected["margin"].min() > NEAR_TIE
    codes, pcm = batch_of_three(*streams({**tensors, "codes": expected["codes"]}))
    for row in range(3):
        np.testing.assert_array_equal(codes[:, row], expected["codes"])
        np.testing.assert_allclose(pcm[:, row], expected["pcm"], atol=PCM_TOLERANCE)


def test_rows_that_stop_start_and_restart_are_those_of_the_reference(kyutai, batch_of_three):
    tensors = kyutai[1]
    expected = {k: tensors[f"expected/batch/{k}"] for k in ("codes", "pcm", "margin")}
    run, reset = tensors["inputs/batch/exec_mask"], tensors["inputs/batch/reset_mask"]
    assert run.any(0).all() and not run.all() and reset.any()

    def longer(x):
        return np.pad(x, ((0, 60 - len(x)), *[(0, 0)] * (x.ndim - 1)))

    inputs = (tensors["inputs/batch/pcm"], expected["codes"], run, reset)
    codes, pcm = batch_of_three(*map(longer, inputs))
    codes, pcm = np.asarray(codes)[: len(run)], np.asarray(pcm)[: len(run)]
    margin = expected["margin"]
    chain = np.minimum.accumulate(margin[..., 1:], -1)  # a tie reaches the later acoustic levels
    decided = np.concatenate([margin[..., :1], chain], -1) > NEAR_TIE
    np.testing.assert_array_equal(
        np.where(decided, codes, 0)[run], np.where(decided, expected["codes"], 0)[run]
    )
    assert decided[run].mean() > 0.99
    np.testing.assert_allclose(pcm[run], expected["pcm"][run], atol=PCM_TOLERANCE)
    assert (codes[~run] == -1).all() and not pcm[~run].any()


def test_the_full_form_is_that_of_the_reference(kyutai, whole):
    tensors = kyutai[1]
    codes, pcm = whole(tensors["inputs/pcm"])
    np.testing.assert_array_equal(codes.T, tensors["expected/full/codes"])
    expected = tensors["expected/full/pcm"].reshape(-1)
    np.testing.assert_allclose(pcm, expected, atol=PCM_TOLERANCE)


def test_stream_and_full_part_where_the_ring_is_full(golden, whole):
    """Ten frames of two columns fill a window of 20; not an error but the reference's behaviour."""
    recording = golden("mimi_kyutai")
    first = recording.provenance["stats"]["first_frame_stream_differs_from_full"]
    assert first == recording.config["transformer"]["context"] // 2
    streamed = recording.tensors["expected/stream/codes"]
    same = streamed == whole(recording.tensors["inputs/pcm"])[0].T
    assert same[:first].all() and not same[first:].all()


def test_the_forks_ring_rule_gives_the_forks_codes_and_audio(recorded, golden):
    codec, tensors = recorded("mimi_personaplex")
    expected = {k: tensors[f"expected/stream/{k}"] for k in ("codes", "pcm", "margin")}
    assert codec.config.transformer.ring == "personaplex"
    assert expected["margin"].min() > NEAR_TIE
    codes = codec.compiled(encode)(tensors["inputs/pcm"].reshape(1, -1))
    np.testing.assert_array_equal(codes[0].T, expected["codes"])
    pcm = codec.compiled(decode)(expected["codes"].T[None])
    np.testing.assert_allclose(pcm[0], expected["pcm"].reshape(-1), atol=PCM_TOLERANCE)
    kyutai = golden("mimi_kyutai").tensors["expected/stream/codes"]
    assert np.any(expected["codes"] != kyutai)


def test_a_partial_last_frame_is_followed_by_silence(kyutai, whole):
    """The waveform is padded, not each convolution: the reference's codes of the last frame."""
    tensors = kyutai[1]
    length = int(tensors["inputs/partial_num_samples"][0])
    expected = tensors["expected/partial/codes"]
    assert 3 * 1920 < length < 4 * 1920 and len(expected) == 4
    pcm = tensors["inputs/pcm"].reshape(-1).copy()
    pcm[length:] = 0
    np.testing.assert_array_equal(whole(pcm)[0].T[:4], expected)


def test_whole_signals_are_scans_of_the_streaming_step(small, small_frame):
    """Beyond the window too, where the full form would differ; the last frame is padded."""
    signal = np.random.default_rng(0).uniform(-1, 1, (2, 90)).astype(np.float32)

    def both(mimi, params, pcm):
        codes = encode(mimi, params, pcm)
        return codes, decode(mimi, params, codes)

    codes, audio = map(np.asarray, small.compiled(both)(signal))
    assert codes.shape == (2, 3, 12) and audio.shape == (2, 96)
    padded = np.pad(signal, ((0, 0), (0, 6))).reshape(2, 12, 8)
    state = init_state(small.mimi, 2)
    for frame in range(12):
        given = codes[:, :, frame]
        state, encoded, heard = small_frame(state, padded[:, frame], given, np.ones(2, bool))
        np.testing.assert_array_equal(encoded, given)
        np.testing.assert_allclose(heard, audio[:, 8 * frame : 8 * (frame + 1)], atol=1e-6)


def test_masked_rows_give_no_codes_and_no_sound(small, small_frame):
    pcm, mask = np.ones((2, 8), np.float32), np.array([False, True])
    codes = np.zeros((2, 3), np.int32)
    _, encoded, audio = small_frame(init_state(small.mimi, 2), pcm, codes, mask)
    assert (encoded[0] == -1).all() and (encoded[1] >= 0).all()
    assert not np.any(audio[0]) and np.any(audio[1])


def test_a_call_takes_exactly_one_frame(small):
    state, ran = init_state(small.mimi, 1), jnp.ones(1, bool)
    for samples in (0, 7, 16):
        with pytest.raises(ValueError, match=rf"got {samples} samples, expected one frame of 8"):
            encode_step(small.mimi, small.params, state, jnp.zeros((1, samples)), ran)


@pytest.mark.parametrize("bad", [-2, -1, 7])
def test_codes_outside_the_codebook_are_an_error_on_the_host(small, bad):
    """A gather would silently take a neighbour: -2 is what a model gives before it is ready."""
    codes = jnp.array([[[0, 1], [bad, 2], [3, 4]]])
    with pytest.raises(ValueError, match=rf"codes span {min(bad, 0)} to .*, expected 0 to 6; drop"):
        decode(small.mimi, small.params, codes)


def test_codes_outside_the_codebook_contribute_nothing_on_the_device(small, small_frame):
    """The same for every such code, and not what a code of the book gives."""

    def sound(last):
        codes = np.array([[1, 2, last], [3, 0, 6]], np.int32)
        pcm, ran = np.zeros((2, 8), np.float32), np.ones(2, bool)
        return np.asarray(small_frame(init_state(small.mimi, 2), pcm, codes, ran)[2][0])

    for strange in (-2, 7, 2000):
        np.testing.assert_array_equal(sound(strange), sound(-1))
    assert not any(np.allclose(sound(-1), sound(known)) for known in range(7))


def test_the_state_is_donated_and_used_up(small, small_frame):
    """XLA would warn, and a warning is an error here, of donated buffers it could not use."""
    state = init_state(small.mimi, 2)
    leaves = jax.tree.leaves(state)
    pcm, codes = np.zeros((2, 8), np.float32), np.zeros((2, 3), np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small_frame(state, pcm, codes, np.ones(2, bool))
    assert all(leaf.is_deleted() for leaf in leaves)


def test_a_bad_row_is_heard_as_silence_and_the_others_never_notice(small, small_frame):
    """NaN in a ring would poison the session's attention for as long as it is in the window."""
    rng = np.random.default_rng(5)
    pcm, codes = rng.uniform(-1, 1, (6, 2, 8)).astype(np.float32), np.zeros((2, 3), np.int32)
    bad = pcm.copy()
    bad[1, 0, 2:4], bad[2, 0, :] = (np.nan, -np.inf), 3e38
    silent = bad.copy()
    silent[1, 0, 2:4] = 0
    runs = []
    for given in (bad, silent, pcm):
        state, heard = init_state(small.mimi, 2), []
        for frame in given:
            state, encoded, _ = small_frame(state, frame, codes, np.ones(2, bool))
            heard.append(np.asarray(encoded))
        runs.append(np.stack(heard))
    np.testing.assert_array_equal(runs[0], runs[1])
    np.testing.assert_array_equal(runs[0][:, 1], runs[2][:, 1])
    assert ((runs[0] >= 0) & (runs[0] < 7)).all()


def test_other_formats_and_too_many_codebooks_are_refused(small):
    state, ran = init_state(small.mimi, 1), jnp.ones(1, bool)
    with pytest.raises(ValueError, match=r"got int16 samples, expected floats in \[-1, 1\]"):
        check_frame(small.mimi, np.zeros((1, 8), np.int16))
    with pytest.raises(ValueError, match=r"got codes int32\[1, 5\].* with 1 to 4 codebooks"):
        decode_step(small.mimi, small.params, state, jnp.zeros((1, 5), jnp.int32), ran)


def test_a_signal_without_samples_has_no_frames(small):
    codes = encode(small.mimi, small.params, jnp.zeros((2, 0)))
    assert codes.shape == (2, 3, 0)
    assert decode(small.mimi, small.params, codes).shape == (2, 0)


def test_products_are_asked_for_in_full_precision(small):
    """A TPU would otherwise round every operand to bf16, and codes would flip."""

    def both(mimi, params, state, pcm, mask):
        state, codes = encode_step(mimi, params, state, pcm, mask)
        return decode_step(mimi, params, state, codes, mask)

    given = (init_state(small.mimi, 1), jnp.zeros((1, 8)), jnp.ones(1, bool))
    run = jax.jit(lambda params, *rest: both(small.mimi, params, *rest))
    traced = run.trace(small.params, *given)
    for platform in ("tpu", "cpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
        assert len(products) > 20
        assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
        assert "f64" not in text and "stablehlo.convolution" not in text


@pytest.mark.parity
def test_a_codec_of_another_size_streams_as_the_reference_does_live():
    """Random weights in the reference's own model, three windows long."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oracle's own
        loaders = pytest.importorskip("moshi.models.loaders")
    from convert import params_from_tensors

    config = MimiConfig(
        sample_rate=600,
        seanet=SeanetConfig(dimension=24, n_filters=4, n_residual_layers=2, ratios=(4, 3, 2)),
        quantizer=QuantizerConfig(dimension=10, n_q=6, bins=40),
        transformer=replace(
            nano().transformer, dim=24, num_heads=3, hidden=50, context=10, layer_scale=0.5
        ),
        num_codebooks=5,
    )
    torch.manual_seed(4)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = loaders.get_mimi(None, config.to_dict(), num_codebooks=config.num_codebooks)
        for name, value in model.state_dict().items():
            if name.endswith("embedding_sum"):
                value.normal_(std=0.3)
            elif name.endswith("cluster_usage"):
                value.uniform_(0.5, 2)
            elif name.endswith("_initialized"):
                value.fill_(1)
            elif name.startswith("encoder.") and name.endswith("weight"):
                value.mul_(2)  # so that the signal outweighs the biases
        pcm = torch.randn(1, 1, 15 * config.frame_samples)
        frames = pcm.split(config.frame_samples, dim=2)
        with model.streaming(1):
            codes = [model.encode(frame) for frame in frames]
            audio = torch.cat([model.decode(code) for code in codes], dim=2)
        codes = torch.cat(codes, dim=2).numpy()
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}

    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))
    params = params_from_tensors(config, tensors)
    run = jax.jit(lambda *args: (encode(mimi, *args[:2]), decode(mimi, args[0], args[2])))
    got, heard = run(params, jnp.asarray(pcm[0].numpy()), jnp.asarray(codes, jnp.int32))
    assert all(len(set(level.tolist())) > 5 for level in codes[0])
    np.testing.assert_array_equal(got, codes)
    np.testing.assert_allclose(heard, audio[0], atol=PCM_TOLERANCE)
