"""What the monitors get to see of a group."""

import numpy as np
import pytest

from grpo.watch import group_views, keep_monitors, load_monitors, response_from_s
from rewards import Monitors, statistics_table
from rewards.monitors import epoch_means

HOP_S = 0.032


def test_the_views_of_a_group():
    probabilities = np.zeros((2, 400), np.float32)
    probabilities[0, round(8.0 / HOP_S) : round(10.0 / HOP_S)] = 1.0
    text = np.full((2, 12), 3)
    text[0, 6:9] = (7, 0, 8)
    text[:, :4] = 9  # before the segment
    quiet, silent = reversed(
        group_views(
            probabilities[::-1],
            text[::-1],
            padding=(3, 0),
            frames=(4, 12),
            num_samples=400 * 512,
            axis="turn",
            labels={"user_turn_end_s": 4.0},
            start_s=3.2,
            duration_s=9.6,
        )
    )
    assert quiet.dialogue.agent == (pytest.approx((4.77, 6.83), abs=0.02),)
    assert (quiet.pad_share, silent.pad_share) == (0.75, 1.0)
    assert (quiet.response_from_s, quiet.dialogue.user_turn_end_s) == (4.0, 4.0)
    means = epoch_means(statistics_table([[quiet, silent]]))
    assert means["empty"].value == 0.5
    assert means["padding"].value == 0.875


def test_where_a_response_is_due():
    assert response_from_s("turn", {"user_turn_end_s": 4.0}) == 4.0
    assert response_from_s("interruption", {"interruption": (4.0, 6.0)}) == 6.0
    assert response_from_s("pause", {}) is None
    assert response_from_s("backchannel", {"backchannels": ((1.0, 2.0),)}) is None


def test_the_first_epoch_is_kept_in_the_run_folder(tmp_path):
    assert load_monitors(tmp_path).first == {}
    monitors = Monitors()
    table = np.full((2, 8), 0.25)
    monitors.check(table)
    keep_monitors(tmp_path, monitors)
    assert load_monitors(tmp_path).first == monitors.first != {}
