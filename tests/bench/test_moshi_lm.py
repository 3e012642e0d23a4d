import sys

import numpy as np
import pytest

from bench.peers import moshi_lm
from bench.peers.moshi_lm import against_moshi, check_tokens
from bench.step import StepOptions


def says(*frames):
    queue = list(frames)
    return lambda: queue.pop(0)


def test_frames_without_tokens_are_not_counted():
    frame = np.array([1, 2])
    assert check_tokens(says(-frame, frame, frame), says(None, frame, frame), 3) == 2


def test_other_tokens_end_the_comparison():
    one, two = np.array([1, 2]), np.array([1, 3])
    with pytest.raises(ValueError, match=r"frame 1: tokens are \[1, 2\], PyTorch says \[1, 3\]"):
        check_tokens(says(one, one), says(one, two), 2)
    with pytest.raises(ValueError, match="no tokens in 1 frames"):
        check_tokens(says(one), says(None), 1)


def test_only_what_the_reference_can_do_is_compared():
    for options in ({"dtype": "bf16"}, {"batch": "1,4"}):
        with pytest.raises(ValueError, match="expected a preset in f32 with one session"):
            against_moshi(StepOptions(**options))


def test_a_missing_reference_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(moshi_lm, "limit_threads", lambda count: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"needs torch, which is not installed; run: pip install"):
        against_moshi(StepOptions())


@pytest.mark.parity
def test_the_command_finds_equal_tokens_and_prints_the_ratio(monkeypatch, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("moshi")
    monkeypatch.setattr(
        moshi_lm, "limit_threads", lambda count: None
    )  # the tests after this want their cores
    assert against_moshi(StepOptions(preset="nano", frames=6, warmup=1)) == 0
    out = capsys.readouterr().out
    assert "equal in 5 greedy frames" in out and "ratio" in out
