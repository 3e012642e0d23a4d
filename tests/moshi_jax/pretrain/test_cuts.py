"""What an update learns from depends on its number alone."""

from dataclasses import replace

import numpy as np
import pytest

from moshi_jax.pretrain import PretrainConfig
from moshi_jax.pretrain.cuts import UNKNOWN, eval_batches, train_batches
from moshi_jax.pretrain.tokens import Entry, TokenFolder, TokenFormat


@pytest.fixture(scope="module")
def folder():
    """Recordings of 50, 30 and 5 frames whose tokens say where they are from."""
    entries = [
        Entry(name=str(i), num_frames=n, num_words=0, shard="", row=i)
        for i, n in enumerate((50, 30, 5))
    ]

    def read(entry):
        return np.tile(100 * entry.row + np.arange(entry.num_frames, dtype=np.int32), (5, 1))

    format = TokenFormat(codec=0, tokenizer="", agent_codebooks=2, user_codebooks=2, card=8)
    return TokenFolder(format=format, entries=entries, read=read)


@pytest.fixture
def config(tmp_path):
    return PretrainConfig(
        checkpoint=tmp_path, data=tmp_path, run_dir=tmp_path, steps=40, batch=4, cut_frames=10
    )


def test_an_update_is_the_same_from_wherever_a_run_continues_and_on_any_hosts(folder, config):
    whole = list(train_batches(folder, config))
    assert len(whole) == 40 and whole[0].shape == (4, 5, 10)
    rest = list(train_batches(folder, config, first=33))
    np.testing.assert_array_equal(np.stack(rest), np.stack(whole[33:]))
    hosts = [list(train_batches(folder, config, host=h, num_hosts=2)) for h in range(2)]
    for update, (even, odd) in enumerate(zip(*hosts, strict=True)):
        np.testing.assert_array_equal(whole[update][0::2], even)
        np.testing.assert_array_equal(whole[update][1::2], odd)
    other = list(train_batches(folder, replace(config, seed=1)))
    assert not np.array_equal(np.stack(other), np.stack(whole))


def test_cuts_are_drawn_by_length_and_short_recordings_are_followed_by_nothing(folder, config):
    cuts = np.concatenate(list(train_batches(folder, replace(config, steps=400))))
    first = cuts[:, 0, 0]
    shares = np.bincount(first // 100, minlength=3) / len(first)
    np.testing.assert_allclose(shares, [50 / 85, 30 / 85, 5 / 85], atol=0.03)
    long = first[first < 100]
    assert long.min() == 0 and long.max() == 40
    short = cuts[first >= 200]
    assert (short[:, :, :5] == 200 + np.arange(5)).all() and (short[:, :, 5:] == UNKNOWN).all()


def test_a_share_of_the_cuts_begins_with_its_recording(folder, config):
    cuts = np.concatenate(list(train_batches(folder, replace(config, steps=200, from_start=0.6))))
    at_start = (cuts[:, 0, 0] % 100 == 0).mean()
    assert 0.6 < at_start < 0.75  # and some by chance


def test_evaluation_goes_through_every_frame_once(folder, config):
    batches = list(eval_batches(folder, config))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    seen = np.concatenate(batches)[:, 0].ravel()
    wanted = np.concatenate([np.arange(50), 100 + np.arange(30), 200 + np.arange(5)])
    np.testing.assert_array_equal(np.sort(seen[seen != UNKNOWN]), wanted)
