"""The time axis of a session over recordings, on an agent that repeats the user."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from helium_jax import DuplexSession
from moshi_jax.converse import Checkpoints, converse

SIZE = 1920


class Echo(DuplexSession):
    """Sessions whose agents repeat the user with no delay of their own, on the model's clock."""

    frame_samples = SIZE
    delay_frames = lead_frames = None

    def __init__(self, delay, lead, batch=1):
        self.delay_frames, self.lead_frames, self.batch = delay, lead, batch
        self.heard, self.masks = [], []

    def step(self, pcm, exec_mask=None):
        call = len(self.heard)
        self.heard.append(np.array(pcm))
        self.masks.append(np.array(exec_mask))
        frame = call - self.delay_frames  # the frame that comes out of this call ...
        said = np.full(pcm.shape, np.nan)
        if frame >= 0:  # ... and went in
            said = self.heard[frame + self.lead_frames]
        return SimpleNamespace(pcm=said)

    def save(self, path, note=None):
        np.save(path.with_suffix(".npy"), np.stack(self.heard))
        path.write_text(json.dumps(note))

    def restore(self, path):
        self.heard = list(np.load(path.with_suffix(".npy")))
        return json.loads(path.read_text())


def random_pcm(length, seed=0):
    return np.random.default_rng(seed).normal(size=length).astype(np.float32)


# Moshi with delays 1 and 2, PersonaPlex without a prompt and after one.
@pytest.mark.parametrize("delay, lead", [(1, 1), (2, 1), (2, 1), (1, 0)])
@pytest.mark.parametrize("length", [1, SIZE, 3 * SIZE, 3 * SIZE + 700])
def test_an_echo_comes_back_where_it_was_said(delay, lead, length):
    pcm, session = random_pcm(length), Echo(delay, lead)
    spoken = list(converse(session, [pcm]))
    said = np.concatenate([part.frame.pcm[0] for part in spoken])
    assert [part.index for part in spoken] == list(range(-(-length // SIZE)))
    np.testing.assert_array_equal(said[:length], pcm)
    assert not said[length:].any()
    assert not np.any(session.heard[:lead]), "the first calls are not heard: nothing is said there"


def test_each_recording_of_a_batch_ends_on_its_own():
    users = [random_pcm(2 * SIZE), random_pcm(4 * SIZE + 5, seed=1)]
    session = Echo(2, 1, batch=2)
    spoken = list(converse(session, users))
    assert [part.running.tolist() for part in spoken] == [[True, True]] * 2 + [[False, True]] * 3
    for row, pcm in enumerate(users):
        said = np.concatenate([part.frame.pcm[row] for part in spoken if part.running[row]])
        np.testing.assert_array_equal(said[: len(pcm)], pcm)
    assert np.sum(session.masks, axis=0).tolist() == [2 + 2, 5 + 2]


def test_a_run_that_ended_anywhere_goes_on_from_its_last_save(tmp_path):
    pcm = random_pcm(9 * SIZE)
    place = Checkpoints(tmp_path / "state", every_frames=4)
    first = converse(Echo(1, 1), [pcm], checkpoints=place)
    for _ in range(7):  # frames 0 to 6: saved after call 4, then after call 8, whose frame is 7
        next(first)
    first.close()  # killed
    rest = list(converse(Echo(1, 1), [pcm], checkpoints=place, resume=True))
    assert [part.index for part in rest] == [7, 8]
    said = np.concatenate([part.frame.pcm[0] for part in rest])
    np.testing.assert_array_equal(said, pcm[7 * SIZE :])


def test_a_run_that_was_left_off_has_the_rest_before_it(tmp_path):
    pcm = random_pcm(6 * SIZE)
    place = Checkpoints(tmp_path / "state", every_frames=100)
    first = list(converse(Echo(2, 1), [pcm], checkpoints=place, stop_frame=4))
    rest = list(converse(Echo(2, 1), [pcm], checkpoints=place, resume=True))
    assert [part.index for part in first + rest] == list(range(6))


def test_other_recordings_are_refused(tmp_path):
    place = Checkpoints(tmp_path / "state", every_frames=1)
    list(converse(Echo(1, 1), [random_pcm(SIZE)], checkpoints=place))
    with pytest.raises(ValueError, match=r"recordings of \[1920\] samples were heard, expected"):
        list(converse(Echo(1, 1), [random_pcm(7)], checkpoints=place, resume=True))
    with pytest.raises(ValueError, match=r"resume needs the file"):
        list(converse(Echo(1, 1), [random_pcm(7)], resume=True))
