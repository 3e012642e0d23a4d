"""Tracks: the agent on the frame grid, the user anywhere, labels where the sound is."""

import numpy as np
import pytest

from recipes.nano.tracks import FRAME, LABELS_A_FRAME, PROSODY, Mix, TrackMaker


@pytest.fixture
def maker(humming):
    return TrackMaker(humming)


def onsets(row):
    loud = np.abs(row) > 0
    return [i for i in np.flatnonzero(loud) if i > FRAME and not loud[i - FRAME : i].any()]


def test_the_agent_starts_on_frames_and_the_user_anywhere(maker):
    mix = Mix(silent=0.0, off_grid=0.0, gap_s=(0.2, 0.5))
    tracks = maker.draw(np.random.default_rng(0), mix, batch=12, frames=40)
    assert tracks.agent.any() and not tracks.agent.all()
    starts = {
        who: [i % FRAME for row in tracks.pcm[tracks.agent == who] for i in onsets(row)]
        for who in (True, False)
    }
    assert len(starts[True]) > 5 and set(starts[True]) == {0}
    assert len(set(starts[False])) > 5
    loudest = np.abs(tracks.pcm).max(axis=1)
    assert np.ptp(loudest[tracks.agent]) < 1e-3 < np.ptp(loudest[~tracks.agent])


def test_labels_are_where_the_sound_is(maker):
    mix = Mix(silent=0.0, gap_s=(0.2, 0.5))
    tracks = maker.draw(np.random.default_rng(1), mix, batch=8, frames=40)
    hop = FRAME // LABELS_A_FRAME
    loud = np.abs(tracks.pcm).reshape(8, -1, hop).max(axis=2) > 0.01
    for labels in (tracks.phones, tracks.prosody):
        assert labels.shape == loud.shape
        assert np.mean((labels > 0) == loud) > 0.95
    falling = tracks.prosody == PROSODY.index("fall")
    assert falling[~tracks.agent].any() and not falling[tracks.agent].any()
    nasal = tracks.phones == maker.phone_ids["m"]
    assert np.mean(nasal[~tracks.agent] == falling[~tracks.agent]) > 0.98


def test_some_tracks_are_silent(maker):
    tracks = maker.draw(np.random.default_rng(2), Mix(silent=1.0), batch=3, frames=10)
    assert not tracks.pcm.any() and not tracks.phones.any()
