import re
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from convert import load_mimi, load_moshi, load_voice
from helium_jax import DuplexSession, Moshi, Sampling, TextTokenizer, Voice, nano
from layers_jax import Precision
from layers_jax.functional import abstract
from mimi_jax import Mimi, QuantizerConfig
from mimi_jax import nano as nano_mimi

PCM_TOLERANCE = 1e-5
COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture(scope="module")
def compilations():
    """Programs compiled since the module began, one entry each."""
    counted = []

    def listen(event, duration, **_):
        if event == COMPILED:
            counted.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield counted
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def two(tiny_checkpoint, compilations):
    """Two sessions side by side, warmed up, and how many programs that took."""
    mimi, mimi_params = load_mimi(tiny_checkpoint)
    lm, lm_params = load_moshi(tiny_checkpoint, precision=Precision.f32())
    session = DuplexSession(mimi, mimi_params, lm, lm_params, batch=2, sampling=Sampling.greedy())
    before = len(compilations)
    session.warmup()
    return session, len(compilations) - before


@pytest.fixture
def session(two):
    two[0].reset()
    return two[0]


@pytest.fixture(scope="module")
def reference(golden):
    return golden("checkpoint_moshi_tiny_e2e").tensors


def played(session, pcm, masks=None):
    """All calls of recorded sessions: tokens [S, B, 9], validity [S, B], audio [S, B, samples]."""
    frames = [
        session.step(frame, None if masks is None else masks[call])
        for call, frame in enumerate(pcm)
    ]
    text, codes, valid, audio = (
        np.stack([np.asarray(getattr(frame, name)) for frame in frames])
        for name in ("text", "codes", "valid", "pcm")
    )
    return np.concatenate([text[..., None], codes], axis=2), valid, audio


def test_audio_in_gives_the_references_tokens_and_audio(session, reference):
    pcm = np.repeat(reference["inputs/pcm"][:, None], 2, axis=1)
    tokens, valid, audio = played(session, pcm)
    expected = reference["expected/valid"]
    assert session.delay_frames == int(np.argmax(expected)) == 1
    for row in range(2):
        np.testing.assert_array_equal(valid[:, row], expected)
        np.testing.assert_array_equal(tokens[expected, row], reference["expected/out"][expected])
        assert (tokens[~expected, row] == -2).all()
        np.testing.assert_allclose(audio[:, row], reference["expected/pcm"], atol=PCM_TOLERANCE)


def test_sessions_with_clocks_of_their_own_are_each_as_if_alone(session, reference):
    """Both play the recording, each pausing when it likes; during a pause anything may come."""
    rng = np.random.default_rng(0)
    masks = rng.random((52, 2)) < 0.7
    pcm = rng.uniform(-1, 1, (52, 2, 1920)).astype(np.float32)
    pcm[~masks] = np.nan
    for row in range(2):
        pcm[masks[:, row], row] = reference["inputs/pcm"][: masks[:, row].sum()]
    tokens, valid, audio = played(session, pcm, masks)
    assert masks.sum(0).min() > 25 and masks.sum(0)[0] != masks.sum(0)[1]
    for row in range(2):
        ran = masks[:, row]
        expected = reference["expected/valid"][: ran.sum()]
        np.testing.assert_array_equal(valid[ran, row], expected)
        wanted = reference["expected/out"][: ran.sum()][expected]
        np.testing.assert_array_equal(tokens[ran, row][expected], wanted)
        wanted = reference["expected/pcm"][: ran.sum()]
        np.testing.assert_allclose(audio[ran, row], wanted, atol=PCM_TOLERANCE)
        assert not valid[~ran, row].any() and not audio[~ran, row].any()


def test_a_reset_starts_one_session_anew_and_no_other(session, reference):
    """Even after it was fed NaN."""
    pcm = np.repeat(reference["inputs/pcm"][:, None], 2, axis=1)
    broken = pcm[:6].copy()
    broken[3:, 1] = np.nan
    before, _, _ = played(session, broken)
    session.reset(np.array([False, True]))
    rest = np.stack([pcm[6:30, 0], pcm[:24, 1]], axis=1)
    tokens, valid, audio = played(session, rest)
    expected = reference["expected/out"]
    np.testing.assert_array_equal(np.concatenate([before, tokens])[1:, 0], expected[1:30])
    assert valid[:, 1].tolist() == [False, *[True] * 23]
    np.testing.assert_array_equal(tokens[1:, 1], expected[1:24])
    np.testing.assert_allclose(audio[:, 1], reference["expected/pcm"][:24], atol=PCM_TOLERANCE)


def test_the_first_frame_of_a_call_never_matters(session, reference):
    """The model has no place for it, and the codec does not remember it."""
    pcm = np.repeat(reference["inputs/pcm"][:12, None], 2, axis=1)
    pcm[0, 0] = 0.9
    tokens, _, audio = played(session, pcm)
    np.testing.assert_array_equal(tokens[:, 0], tokens[:, 1])
    np.testing.assert_array_equal(audio[:, 0], audio[:, 1])
    np.testing.assert_array_equal(tokens[1:, 0], reference["expected/out"][1:12])


def test_the_frame_is_one_program_compiled_once(two, compilations):
    session, programs = two
    assert programs == 1
    session.reset()
    frame, masks = np.zeros((2, 1920), np.float32), np.array([[True, True], [True, False]])
    for mask in masks:
        session.step(frame, mask)
    session.reset(np.array([True, False]))
    before = len(compilations)
    for call in range(50):
        session.step(frame, masks[call % 2])
    session.reset(np.array([False, True]))
    session.warmup()
    assert len(compilations) == before


def test_nothing_in_the_program_goes_back_to_the_host(two):
    text = two[0]._compiled.as_text()
    assert "while" in text or "fusion" in text  # it is the program's text
    assert re.findall(r"callback|infeed|outfeed|\bsend\(|\brecv\(|host_compute", text) == []


def test_the_state_is_donated_and_used_up(session):
    old = jax.tree.leaves(session._state)
    session.step(np.zeros((2, 1920), np.float32))
    assert all(leaf.is_deleted() for leaf in old)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(session._params))


@pytest.mark.parametrize("shape", [(2, 1919), (1, 1920), (2, 3840)])
def test_frames_of_another_shape_are_refused(session, shape):
    with pytest.raises(ValueError, match=r"a frame has shape .*, expected \(2, 1920\) .*; buffer"):
        session.step(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"num_codebooks": 3}, r"codec gives 3 codebooks of 64 entries, expected 8 of 64; use"),
        (
            {"quantizer": QuantizerConfig(bins=32, n_q=8)},
            r"codec gives 8 codebooks of 32 entries, expected 8 of 64; use",
        ),
    ],
)
def test_a_codec_of_another_model_is_refused(change, message):
    lm = abstract(lambda: Moshi(nano(), rngs=nnx.Rngs(0)))
    mimi = abstract(lambda: Mimi(replace(nano_mimi(), **change), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=message):
        DuplexSession(mimi, {}, lm, {})


PLEX = "checkpoint_personaplex_tiny"


@pytest.fixture(scope="module")
def plex(tiny_checkpoint):
    """A PersonaPlex session of two, prompted with a stored voice and a role."""
    folder = tiny_checkpoint.with_name(PLEX)
    arch = folder.with_name(f"{PLEX}.arch.json")
    mimi, mimi_params = load_mimi(folder, arch=arch)
    lm, lm_params = load_moshi(folder, precision=Precision.f32(), arch=arch)
    tokenizer = TextTokenizer(folder / "tokenizer_spm_32k_3.model")
    session = DuplexSession(
        mimi, mimi_params, lm, lm_params, batch=2, sampling=Sampling.greedy(), tokenizer=tokenizer
    )
    assert (session.lead_frames, session.delay_frames) == (1, 2)
    session.prompt(load_voice(folder, "TINY0"), TEXT, beyond_context=True)
    return session


TEXT = "You are a patient guide in a museum of clocks. Your name is Robin."


def test_a_prompted_session_is_the_references_again_after_a_reset(plex, golden):
    recorded = golden(f"{PLEX}_e2e")
    assert recorded.provenance["text_prompt"] == TEXT
    pcm = np.repeat(recorded.tensors["inputs/user_pcm"][:, None], 2, axis=1)
    expected = recorded.tensors["expected/pt_bf16/out"][:, :9]
    assert (plex.lead_frames, plex.delay_frames) == (0, 1)
    for rows in (None, np.array([True, False])):
        plex.reset(rows)
        assert plex.offsets[0] == recorded.tensors["expected/offset_after_prompts"]
        tokens, valid, audio = played(plex, pcm)
        assert valid.all()
        np.testing.assert_array_equal(tokens[:, 0], expected)
        wanted = recorded.tensors["expected/pt_bf16/pcm"]
        np.testing.assert_allclose(audio[:, 0], wanted, atol=PCM_TOLERANCE)


def test_a_session_from_a_file_goes_on_as_if_it_had_not_stopped(plex, tmp_path):
    """Its prompt is in the file too: a reset of the restored session begins with it."""
    pcm = np.random.default_rng(1).uniform(-1, 1, (12, 2, 1920)).astype(np.float32)
    plex.reset()
    played(plex, pcm[:5])
    plex.save(tmp_path / "state", {"heard": 5})
    expected = played(plex, pcm[5:])
    plex.reset()
    again = played(plex, pcm[:5])
    opening, plex._opening = plex._opening, None
    plex.reset()
    assert plex.restore(tmp_path / "state") == {"heard": 5}
    for got, wanted in zip(played(plex, pcm[5:]), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
    plex.reset()
    for got, wanted in zip(played(plex, pcm[:5]), again, strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert plex._opening.caches[0].capacity == opening.caches[0].capacity


def test_nan_in_one_session_leaves_the_other_exact(plex):
    pcm = np.random.default_rng(2).uniform(-1, 1, (10, 2, 1920)).astype(np.float32)
    plex.reset()
    clean = played(plex, pcm)
    plex.reset()
    pcm[3:, 1] = np.nan
    for got, wanted in zip(played(plex, pcm), clean, strict=True):
        np.testing.assert_array_equal(got[:, 0], wanted[:, 0])


def test_many_contexts_later_the_state_is_as_large_and_the_program_the_same(plex, compilations):
    """Hours in small: the ring of 40 frames wraps eight times."""
    plex.reset()
    frame = np.random.default_rng(3).uniform(-1, 1, (2, 1920)).astype(np.float32)
    plex.step(frame)
    sizes, before = jax.tree.map(lambda leaf: leaf.nbytes, plex._state), len(compilations)
    for _ in range(320):
        out = plex.step(frame)
    assert np.asarray(out.valid).all() and np.isfinite(out.pcm).all()
    assert jax.tree.map(lambda leaf: leaf.nbytes, plex._state) == sizes
    assert len(compilations) == before and plex.offsets.max() > 8 * 40


@pytest.mark.parametrize(
    "voice, text, message",
    [
        (None, TEXT, r"voice and role take 60 frames, expected at most the context of 40"),
        (None, "a \u4f60 b", r"the tokenizer cannot hold '\u4f60' of '<system> a \u4f60 b <sys"),
        (np.array([0.0, np.nan]), "", r"voice has shape \[2\], expected \[S\] finite samples"),
        (np.zeros((2, 9)), "", r"voice has shape \[2, 9\], expected \[S\] finite samples"),
        (
            Voice(np.zeros((3, 8), np.float32), np.zeros((17, 4), np.int32)), "",
            r"voice has embeddings \[3, 8\] and cache \[17, 4\], expected \[N, 32\] and \[17, 4\]",
        ),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_used_are_refused(plex, voice, text, message):
    with pytest.raises(ValueError, match=message):
        plex.prompt(voice, text)


def test_a_model_that_knows_no_prompts_and_a_session_without_tokenizer_say_so(session):
    with pytest.raises(ValueError, match=r"timing 'kyutai', expected 'personaplex': only Pers"):
        session.prompt()
    with pytest.raises(ValueError, match=r"text needs a tokenizer, and this session has none"):
        session.prompt(None, "hello")


def test_a_file_of_another_model_is_refused(plex, session, tmp_path):
    session.save(tmp_path / "state")
    with pytest.raises(ValueError, match=r"was saved with model\.card 256 instead of 2048; model"):
        plex.restore(tmp_path / "state")
