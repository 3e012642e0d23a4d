"""Rollouts: equal to calling the step by hand, to the teacher-forced forward, row by row."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.config import SamplingConfig
from grpo.loss import action_logprobs
from grpo.mesh import make_mesh
from grpo.rollout import UNKNOWN, rollout, sampling_of
from helium_jax import forward_text, init_state, step
from mimi_jax import decode, encode

SAMPLING = sampling_of(SamplingConfig(audio_top_k=5))
FRAMES, GROUP, DEVICES = 20, 3, 2


@pytest.fixture(scope="module")
def roll(small):
    """Two groups side by side, each (pcm, num_frames, row_ids): one executable for all tests."""

    def program(params, mimi_params, pcm, num_frames, row_ids):
        return rollout(
            small.lm,
            small.mimi,
            params,
            mimi_params,
            pcm,
            num_frames,
            row_ids,
            sampling=SAMPLING,
            seed=7,
        )

    mapped = make_mesh(DEVICES).map(program, in_axes=(None, None, 0, 0, 0), out_axes=0)

    def call(*groups):
        pcm, num_frames, row_ids = zip(*groups, strict=True)
        both = mapped(
            small.params,
            small.mimi_params,
            np.stack(pcm),
            np.array(num_frames, np.int32),
            np.array(row_ids, np.int32),
        )
        leaves, structure = jax.tree.flatten(jax.device_get(both))
        return [structure.unflatten([leaf[d] for leaf in leaves]) for d in range(DEVICES)]

    return call


@pytest.fixture(scope="module")
def pair(roll, user_pcm):
    """A whole rollout, and a shorter one of another user on the other device."""
    ids = np.arange(2 * GROUP).reshape(2, GROUP)
    return roll((user_pcm, FRAMES, ids[0]), (user_pcm[::-1], 9, ids[1]))


@pytest.fixture(scope="module")
def trajectory(pair):
    return pair[0]


@pytest.fixture(scope="module")
def forced(small):
    """Teacher-forced log-probs of a trajectory's text."""

    @jax.jit
    def run(params, streams):
        logits = forward_text(small.lm, params, streams)
        return action_logprobs(logits, jnp.maximum(streams[:, 0], 0), 0.7)

    return lambda trajectory: np.asarray(run(small.params, jnp.asarray(trajectory.streams())))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_shapes_and_ranges(trajectory, small):
    config = small.lm.config
    assert trajectory.text.shape == trajectory.text_logprob.shape == (GROUP, FRAMES)
    assert trajectory.agent_codes.shape == (GROUP, config.dep_q, FRAMES)
    assert trajectory.user_codes.shape == (config.num_user_codebooks, FRAMES)
    assert trajectory.pcm.shape == (GROUP, FRAMES * small.frame)
    assert trajectory.streams().shape == (GROUP, config.num_streams, FRAMES)
    for tokens, card in (
        (trajectory.text, config.text_card),
        (trajectory.agent_codes, config.card),
    ):
        assert np.asarray(tokens).min() >= 0 and np.asarray(tokens).max() < card
    assert len(np.unique(trajectory.text)) > 3


def test_log_probs_equal_the_teacher_forced_forward_past_the_ring_wrap(trajectory, forced, small):
    assert small.lm.config.context < FRAMES
    np.testing.assert_allclose(trajectory.text_logprob, forced(trajectory), atol=1e-5)


def test_a_shift_by_one_frame_would_be_noticed(trajectory, forced):
    late = trajectory._replace(user_codes=np.roll(trajectory.user_codes, 1, axis=1))
    assert np.abs(forced(late) - trajectory.text_logprob).max() > 0.05


def test_codes_are_those_of_the_codec_at_the_same_frame(trajectory, small, user_pcm):
    @jax.jit
    def codec(params, pcm, codes):
        return encode(small.mimi, params, pcm[None])[0], decode(small.mimi, params, codes)

    pcm, codes = jnp.asarray(user_pcm), jnp.asarray(trajectory.agent_codes)
    heard, spoken = codec(small.mimi_params, pcm, codes)
    np.testing.assert_array_equal(trajectory.user_codes, heard)
    # Two programs, amplitudes up to 13 here: a few roundings of float32 apart.
    np.testing.assert_allclose(trajectory.pcm, spoken, atol=1e-5)


def test_equal_to_calling_the_step_by_hand(trajectory, small):
    """The user's frame t is given at call t + 1; the output of call i is frame i - max_delay."""
    config = small.lm.config
    one = jax.jit(functools.partial(step, small.lm, sampling=SAMPLING))
    state = init_state(small.lm, GROUP, seed=7, row_ids=jnp.arange(GROUP))
    user = np.asarray(trajectory.user_codes).T
    given = [np.zeros_like(user[0]), *user]
    for i, frame in enumerate(given):
        state, out = one(small.params, state, jnp.asarray(np.tile(frame, (GROUP, 1))))
        if i >= config.max_delay:
            t = i - config.max_delay
            np.testing.assert_array_equal(out.tokens[:, 0], trajectory.text[:, t])
            np.testing.assert_array_equal(out.tokens[:, 1:], trajectory.agent_codes[:, :, t])


def test_a_rollout_depends_on_its_own_id_only(roll, trajectory, user_pcm):
    # Row 1 again: in another place, among others, on the other device.
    _, other = roll((user_pcm, 3, [50, 51, 52]), (user_pcm, FRAMES, [9, 8, 1]))
    assert_equal(
        jax.tree.map(lambda leaf: leaf[2], (other.text, other.agent_codes)),
        jax.tree.map(lambda leaf: leaf[1], (trajectory.text, trajectory.agent_codes)),
    )
    assert (other.text[0] != trajectory.text).any(axis=1).all()


def test_padding_and_what_the_user_says_after_the_end_change_nothing(
    roll, pair, trajectory, user_pcm, small
):
    end = 12
    loud = user_pcm.copy()
    loud[end * small.frame :] *= -3
    cut, again = roll((loud, end, range(GROUP)), (user_pcm[::-1], 9, range(GROUP, 2 * GROUP)))
    assert_equal(again, pair[1])
    assert_equal(cut.text[:, :end], trajectory.text[:, :end])
    assert_equal(cut.agent_codes[:, :, : end - 1], trajectory.agent_codes[:, :, : end - 1])
    assert_equal(cut.user_codes[:, :end], trajectory.user_codes[:, :end])
    assert_equal(cut.text_logprob[:, :end], trajectory.text_logprob[:, :end])
    before = (end - 1) * small.frame
    np.testing.assert_allclose(cut.pcm[:, :before], trajectory.pcm[:, :before], atol=1e-6)
    assert (np.asarray(cut.streams())[:, :, end:] == UNKNOWN).all()
    assert not cut.text_logprob[:, end:].any()
    assert not cut.pcm[:, end * small.frame :].any()


def test_a_shorter_group_ends_at_its_own_last_frame(pair):
    assert (pair[1].text[:, :9] >= 0).all() and (pair[1].text[:, 9:] == UNKNOWN).all()
    assert (pair[0].text >= 0).all()


def test_half_a_frame_is_refused(roll, user_pcm):
    half = (user_pcm[:-1], 5, range(GROUP))
    with pytest.raises(ValueError, match="expected a multiple of 24"):
        roll(half, half)
