"""A session over recordings: the user's audio in, the agent's frames out, on one time axis."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from helium_jax import DuplexFrame, DuplexSession

__all__ = ["Checkpoints", "Spoken", "converse"]


class Spoken(NamedTuple):
    """What all agents of a batch say in one frame."""

    index: int
    """t: it covers [0.08 t, 0.08 (t + 1)) s of the users' recordings."""
    frame: DuplexFrame
    running: np.ndarray
    """[B] bool: recordings that have not ended before this frame."""


class Checkpoints(NamedTuple):
    """Where a session is saved while it runs.

    The file holds all that the rest of the conversation depends on, after every `every_frames`
    calls and at the end.
    """

    path: Path
    every_frames: int


def converse(
    session: DuplexSession,
    users: Sequence[np.ndarray],
    *,
    checkpoints: Checkpoints | None = None,
    resume: bool = False,
    stop_frame: int | None = None,
) -> Iterator[Spoken]:
    """The agents' frames, one for each of the users': frame t answers to what was heard before it.

    Where the session hears frame t some calls late, the calls before run on silence, as do those
    after the end that bring the last frames out. A recording that has ended keeps its session as it
    is. The next call is under way before a frame is handed out, so the device does not wait.

    Args:
      session: fresh, or just prompted; its batch is the number of users.
      users: [S] samples of each user; the last frame is padded with silence.
      checkpoints: where to save the session while it runs.
      resume: continue from that file: frames before it was saved are not repeated.
      stop_frame: leave off before this frame, as if the process had ended there.

    Raises:
      ValueError: the file was saved while other recordings were heard.
    """
    lengths = [len(pcm) for pcm in users]
    first = 0
    if resume:
        if checkpoints is None:
            raise ValueError("resume needs the file to resume from")
        first = _resumed(session, checkpoints.path, lengths)
    # Asked after that: a restored session may have begun with a prompt.
    size, delay, lead = session.frame_samples, session.delay_frames, session.lead_frames
    frames = np.array([-(-length // size) for length in lengths])
    calls = np.maximum(frames + delay, 0)
    heard = np.zeros((len(users), int(calls.max()) + lead, size), np.float32)
    for row, pcm in enumerate(users):
        heard[row].reshape(-1)[lead * size : lead * size + len(pcm)] = pcm
    last = int(calls.max()) if stop_frame is None else min(stop_frame + delay, int(calls.max()))
    pending: Spoken | None = None
    for call in range(first, last):
        frame = session.step(heard[:, call], call < calls)
        if pending is not None:
            yield pending
        index = call - delay
        pending = Spoken(index, frame, index < frames) if index >= 0 else None
        ended = call + 1 == last
        if checkpoints and (ended or (call + 1) % checkpoints.every_frames == 0):
            session.save(checkpoints.path, {"calls": call + 1, "samples": lengths})
    if pending is not None:
        yield pending


def _resumed(session: DuplexSession, path: Path, lengths: list[int]) -> int:
    """Restores a session and returns the number of calls that it has had."""
    note = session.restore(path)
    if note.get("samples") != lengths:
        raise ValueError(
            f"{path} was saved while recordings of {note.get('samples')} samples were heard, "
            f"expected {lengths}; give the same files in the same order"
        )
    return note["calls"]
