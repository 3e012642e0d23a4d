"""Caps and splits: seeded, by conversation, and unmoved by other recordings."""

import numpy as np
import pytest

from grpo.segments import Segment
from grpo.selection import SelectionConfig, select, split_conversations


def segments(conversation, count, axis="pause"):
    return [
        Segment(
            axis=axis,
            conversation=conversation,
            x_channel=0,
            start_s=float(10 * i),
            end_s=10.0 * i + 5,
            labels={},
        )
        for i in range(count)
    ]


def test_at_most_so_many_of_a_conversation_and_of_an_axis():
    found = {f"c{i:02d}": segments(f"c{i:02d}", 7) for i in range(30)}
    config = SelectionConfig(max_per_axis=50, max_per_conversation=3)
    chosen = select(found, ["pause"], config)
    assert len(chosen) == 50
    per_conversation = [sum(s.conversation == name for s in chosen) for name in found]
    assert max(per_conversation) == 3
    assert chosen == select(found, ["pause"], config)
    other = SelectionConfig(max_per_axis=50, max_per_conversation=3, seed=1)
    assert chosen != select(found, ["pause"], other)


def test_all_are_kept_below_the_caps_and_axes_are_counted_apart():
    found = {"a": segments("a", 4) + segments("a", 4, "turn"), "b": segments("b", 1)}
    assert len(select(found, ["pause", "turn"], SelectionConfig())) == 9
    assert {s.axis for s in select(found, ["turn"], SelectionConfig())} == {"turn"}


def test_another_recording_does_not_change_the_draw_within_one():
    few = {"a": segments("a", 20)}
    more = {"0": segments("0", 20), **few, "b": segments("b", 20)}
    config = SelectionConfig(max_per_conversation=4)
    chosen = [s for s in select(more, ["pause"], config) if s.conversation == "a"]
    assert chosen == select(few, ["pause"], config)


def test_the_draw_reaches_every_segment():
    found = {"a": segments("a", 6)}
    starts = {
        s.start_s
        for seed in range(40)
        for s in select(found, ["pause"], SelectionConfig(max_per_conversation=2, seed=seed))
    }
    assert starts == {0.0, 10.0, 20.0, 30.0, 40.0, 50.0}


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 0), (20, 1), (100, 5)])
def test_the_split_holds_out_a_part_of_the_conversations(count, held_out):
    names = [f"c{i}" for i in range(count)]
    splits = split_conversations(dict.fromkeys(names, (None, None)), SelectionConfig())
    assert list(splits) == names
    assert list(splits.values()).count("val") == held_out


def test_a_single_conversation_is_for_training_whatever_the_fraction():
    alone = {"a": (None, None)}
    assert split_conversations(alone, SelectionConfig(val_fraction=0.9)) == {"a": "train"}


def test_no_speaker_is_on_both_sides_of_the_split():
    """200 conversations of 30 people, each pair up to several times."""
    rng = np.random.default_rng(0)
    speakers = {f"c{i}": tuple(map(str, rng.choice(30, 2, replace=False))) for i in range(200)}
    splits = split_conversations(speakers, SelectionConfig(val_fraction=0.05))

    def who(split):
        return {name for c, found in splits.items() if found == split for name in speakers[c]}

    assert 1 <= list(splits.values()).count("val") <= 10
    assert who("val").isdisjoint(who("train"))
    for conversation, split in splits.items():
        if split == "left out":
            assert who("val") & set(speakers[conversation])
    shared = split_conversations(speakers, SelectionConfig(disjoint_speakers=False))
    assert set(shared.values()) == {"train", "val"}
    assert list(shared.values()).count("val") == 10


def test_conversations_of_one_pair_stay_together():
    speakers = {f"{pair}{i}": (f"{pair}x", f"{pair}y") for pair in "abcdefghij" for i in range(4)}
    splits = split_conversations(speakers, SelectionConfig(val_fraction=0.1))
    held_out = [name for name, split in splits.items() if split == "val"]
    assert len(held_out) == 4
    assert len({name[0] for name in held_out}) == 1
    assert "left out" not in splits.values()


def test_no_cap_keeps_all_of_a_conversation():
    config = SelectionConfig(max_per_conversation=None)
    assert len(select({"a": segments("a", 20)}, ["pause"], config)) == 20


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_per_axis", 0), ("max_per_conversation", 0), ("val_fraction", 1.0), ("seed", -1)],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, expected "):
        SelectionConfig(**{field: value})
