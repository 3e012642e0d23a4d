"""Groups of a step: a function of (seed, counter), whatever the hosts, resumed anywhere."""

import json
from dataclasses import replace

import numpy as np
import pytest

from grpo.corpora import Word
from grpo.data import DataConfig, group_batches, held_out_batches
from grpo.perturb import PerturbConfig
from grpo.records import ManifestEntry, SegmentRecord, open_shard, write_manifest
from grpo.segments import FRAME_SAMPLES, Segment
from rewards.dialogue import Dialogue

PREFIX = 38  # 3 s of silence in whole frames


def make_segment(axis, number, frames):
    start_s = 4.0 + 0.8 * number
    labels = {
        "pause": {"pauses": [(start_s + 1.0, start_s + 1.5)]},
        "turn": {"user_turn_end_s": start_s + 2.0},
        "backchannel": {"backchannels": [(start_s + 1.0, start_s + 1.4)]},
        "interruption": {"interruption": (start_s + 1.0, start_s + 2.0)},
    }[axis]
    return Segment(
        axis=axis,
        conversation=f"c{number}",
        x_channel=number % 2,
        start_s=start_s,
        end_s=start_s + frames * 0.08,
        labels=labels,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven pause, five turn, one of each other segment; every sample of a record is its number."""
    folder = tmp_path_factory.mktemp("segments")
    entries, number = [], 0
    for axis, count in {"pause": 7, "turn": 5, "backchannel": 1, "interruption": 1}.items():
        shard = f"{axis}.array_record"
        writer = open_shard(folder / shard)
        for row in range(count):
            number += 1
            segment = make_segment(axis, number, frames=10 + 6 * number)
            context = 2 * FRAME_SAMPLES
            samples = context + segment.num_frames * FRAME_SAMPLES
            user = np.full(samples, 100 * number, np.int16)
            user[:context] = -1  # two frames of context
            first_s = segment.start_s - 0.16
            words = [("cut", -0.1), ("before", 0.05), ("inside", 0.5)]
            record = SegmentRecord(
                id=f"{axis}{number}",
                segment=segment,
                user=user,
                n_context_samples=context,
                user_words=None
                if axis == "pause"
                else tuple(Word(w, first_s + at, first_s + at + 0.2) for w, at in words),
            )
            writer.write(record.to_bytes())
            entries.append(
                ManifestEntry(
                    id=record.id,
                    split="val" if axis == "pause" and number == 7 else "train",
                    segment=segment,
                    n_context_samples=context,
                    shard=shard,
                    row=row,
                )
            )
        writer.close()
    write_manifest(folder, entries)
    return folder


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def flat(batches):
    """(index, id, axis) of every group, by index."""
    return sorted(
        (int(index), name, axis)
        for batch in batches
        for index, name, axis in zip(batch.index, batch.segment_id, batch.axis, strict=True)
    )


def assert_equal(one, two):
    for name, left, right in zip(one._fields, one, two, strict=True):
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            assert left == right, name


def test_one_batch(folder):
    batch = next(group_batches(folder, DataConfig(), groups=6))
    assert batch.pcm.dtype == np.float32
    assert batch.pcm.shape[0] == 6
    assert batch.index.tolist() == [0, 1, 2, 3, 4, 5]
    bucket = batch.pcm.shape[1] // FRAME_SAMPLES
    assert bucket in DataConfig().bucket_frames
    assert bucket >= batch.num_frames.max()
    assert set(batch.axis) <= {"pause", "turn"}
    for row in range(6):
        number = int(batch.segment_id[row].removeprefix("pause").removeprefix("turn"))
        frames = 10 + 6 * number
        assert batch.num_frames[row] == PREFIX + frames
        assert batch.segment_start_frame[row] == PREFIX
        assert batch.segment_duration_s[row] == pytest.approx(frames * 0.08)
        start, end = (n * FRAME_SAMPLES for n in (PREFIX, PREFIX + frames))
        assert not batch.pcm[row, :start].any()
        assert np.unique(batch.pcm[row, start:end]) == np.float32(100 * number / 32768)
        assert not batch.pcm[row, end:].any()


def test_labels_are_what_a_dialogue_takes(folder):
    axes = ("pause", "turn", "backchannel", "interruption")
    batch = next(group_batches(folder, DataConfig(axes=axes), groups=40))
    expected = {
        "pause": {},
        "turn": {"user_turn_end_s": 2.0},
        "backchannel": {"backchannels": ((1.0, 1.4),)},
        "interruption": {"interruption": (1.0, 2.0)},
    }
    assert set(batch.axis) == set(axes)
    for axis, labels, duration_s in zip(
        batch.axis, batch.labels, batch.segment_duration_s, strict=True
    ):
        dialogue = Dialogue(duration_s=float(duration_s), **labels)
        for name, value in expected[axis].items():
            np.testing.assert_allclose(getattr(dialogue, name), value, atol=1e-9)
        assert labels.keys() == expected[axis].keys()


def test_perturbed_groups_are_the_same_segments_heard_otherwise(folder):
    noisy = PerturbConfig(probability=1.0, kinds=("gain",), max_kinds=1, level=-20.0)
    for context in (0.0, 1.0):
        clean = DataConfig(seed=5, context_probability=context)
        one = next(group_batches(folder, clean, groups=8))
        other = next(group_batches(folder, replace(clean, perturb=noisy), groups=8))
        np.testing.assert_allclose(other.pcm, 0.1 * one.pcm, atol=1e-7)
        for name in set(one._fields) - {"pcm"}:
            assert repr(getattr(one, name)) == repr(getattr(other, name)), name


def test_perturbations_do_not_depend_on_hosts(folder):
    noisy = PerturbConfig(probability=0.7, kinds=("talker", "white", "loss"))
    config = DataConfig(seed=5, perturb=noisy)
    whole = next(group_batches(folder, config, groups=4))
    parts = [next(group_batches(folder, config, groups=2, host=h, num_hosts=2)) for h in range(2)]
    for part in parts:
        for row, index in enumerate(part.index):
            alone = whole.pcm[whole.index.tolist().index(index)]
            np.testing.assert_array_equal(part.pcm[row], alone)
    ends = whole.num_frames * FRAME_SAMPLES
    assert all(not row[end:].any() for row, end in zip(whole.pcm, ends, strict=True))


def test_the_codec_has_to_be_at_hand(folder):
    config = DataConfig(perturb=PerturbConfig(probability=1.0, kinds=("codec",)))
    with pytest.raises(ValueError, match="codec: got none"):
        group_batches(folder, config, groups=2)
    batch = next(group_batches(folder, config, groups=2, codec=lambda pcm, k: pcm * 0))
    assert not batch.pcm.any()


def test_four_hosts_together_see_what_one_sees(folder):
    config = DataConfig(seed=5)
    alone = take(group_batches(folder, config, groups=8), 6)
    hosts = [
        take(group_batches(folder, config, groups=2, host=h, num_hosts=4), 6) for h in range(4)
    ]
    for step, whole in enumerate(alone):
        parts = [host[step] for host in hosts]
        assert flat(parts) == flat([whole])
        assert {part.pcm.shape[1] for part in parts} == {whole.pcm.shape[1]}
        for part in parts:
            rows = [whole.index.tolist().index(n) for n in part.index]
            np.testing.assert_array_equal(part.pcm, whole.pcm[rows])
            assert part.labels == [whole.labels[row] for row in rows]


def test_groups_do_not_depend_on_the_size_of_a_step(folder):
    config = DataConfig(seed=5)
    eights = flat(take(group_batches(folder, config, groups=8), 3))
    threes = flat(take(group_batches(folder, config, groups=3), 8))
    assert eights == threes


def test_resume_continues_bit_by_bit(folder):
    config = DataConfig(seed=9)
    iterator = group_batches(folder, config, groups=3)
    take(iterator, 4)
    state = json.loads(json.dumps(iterator.get_state()))
    assert state == {"next_group": 12}
    expected = take(iterator, 3)
    fresh = group_batches(folder, config, groups=3)
    fresh.set_state(state)
    for one, two in zip(take(fresh, 3), expected, strict=True):
        assert_equal(one, two)
    iterator.set_state(state)  # going back works as well
    assert_equal(next(iterator), expected[0])


def test_resume_on_other_hosts(folder):
    config = DataConfig(seed=9)
    iterator = group_batches(folder, config, groups=4)
    take(iterator, 3)
    state = iterator.get_state()
    expected = flat(take(iterator, 3))
    resumed = []
    for host in range(3):
        other = group_batches(folder, config, groups=2, host=host, num_hosts=3)
        other.set_state(state)
        assert other.get_state() == state
        resumed += take(other, 2)
    assert flat(resumed) == expected


def test_a_state_inside_a_step_is_refused(folder):
    iterator = group_batches(folder, DataConfig(), groups=4)
    with pytest.raises(ValueError, match="next_group: got 6, expected a multiple of the 4 groups"):
        iterator.set_state({"next_group": 6})


def test_axes_and_segments_are_drawn_evenly_and_by_seed(folder):
    draws = flat(take(group_batches(folder, DataConfig(), groups=20), 30))
    axes = [axis for *_, axis in draws]
    assert axes.count("pause") == 300  # though there are more pauses
    pairs = [tuple(axes[n : n + 2]) for n in range(0, 600, 2)]
    assert set(pairs) == {("pause", "turn"), ("turn", "pause")}  # no axis waits for long
    assert 110 < pairs.count(("pause", "turn")) < 190
    names = [name for _, name, axis in draws if axis == "turn"]
    counts = [names.count(name) for name in set(names)]
    assert len(counts) == 5
    assert min(counts) > 35
    other = flat(take(group_batches(folder, DataConfig(seed=1), groups=20), 30))
    assert other != draws


def test_only_the_chosen_split_and_axes(folder):
    val = DataConfig(axes=("pause",), split="val")
    assert set(next(group_batches(folder, val, groups=5)).segment_id) == {"pause7"}
    train = take(group_batches(folder, DataConfig(axes=("pause",)), groups=40), 2)
    assert {name for batch in train for name in batch.segment_id} == {
        f"pause{n}" for n in range(1, 7)
    }


def contexts(batches):
    return np.concatenate([batch.segment_start_frame - PREFIX for batch in batches])


def test_context_is_drawn_half_of_the_time_up_to_a_limit_that_grows(folder):
    """The records of this folder have two frames of it."""
    config = DataConfig(context_probability=0.5, context_max_s=0.3, context_ramp_steps=11)
    assert [config.context_limit_s(step) for step in (0, 5, 10, 99)] == [0, 0.15, 0.3, 0.3]
    batches = take(group_batches(folder, config, groups=40), 26)
    assert not contexts(batches[:3]).any()  # the limit is below 80 ms, then below two frames
    assert set(contexts(batches[3:6])) == {0, 1}
    late = contexts(batches[10:])
    assert set(late) == {0, 1, 2}
    # Uniform on 0.3 s: 0.08 to 0.16 s give one frame, more gives the two there are.
    assert abs((late == 2).mean() - 0.5 * 0.14 / 0.3) < 0.06
    assert abs((late == 1).mean() - 0.5 * 0.08 / 0.3) < 0.06

    at_once = DataConfig(context_probability=1.0, context_max_s=0.3)
    assert contexts(take(group_batches(folder, at_once, groups=40), 1)).max() == 2
    never = take(group_batches(folder, DataConfig(), groups=40), 3)
    assert not contexts(never).any()


def test_context_comes_before_the_segment_and_moves_no_label(folder):
    config = DataConfig(axes=("turn",), context_probability=1.0, context_max_s=1.0)
    batch = next(group_batches(folder, config, groups=40))
    for row, start in enumerate(batch.segment_start_frame):
        number = int(batch.segment_id[row].removeprefix("turn"))
        own = batch.pcm[row].reshape(-1, FRAME_SAMPLES)[:, 0] * 32768
        np.testing.assert_array_equal(own[PREFIX:start], -1)
        assert own[start] == 100 * number
        assert batch.num_frames[row] == start + 10 + 6 * number
        assert batch.labels[row] == {"user_turn_end_s": pytest.approx(2.0)}
        assert batch.events[row] == [(pytest.approx(2.0), pytest.approx(2.0))]
    assert batch.segment_start_frame.max() == PREFIX + 2


def test_words_of_the_user_are_on_the_clock_of_the_rollout(folder):
    config = DataConfig(axes=("turn",), context_probability=1.0, context_max_s=1.0)
    seen = set()
    for batch in take(group_batches(folder, config, groups=20), 3):
        for words, start in zip(batch.user_words, batch.segment_start_frame, strict=True):
            context_s = (start - PREFIX) * 0.08
            inside_s = start * 0.08 + 0.5 - 0.16
            assert words[-1] == ("inside", pytest.approx(inside_s), pytest.approx(inside_s + 0.2))
            # "before" begins 0.11 s before the segment: it is heard with two frames of context.
            assert [word for word, *_ in words[:-1]] == (["before"] if context_s > 0.11 else [])
            seen.add(round(context_s, 2))
    assert len(seen) > 1
    batch = next(group_batches(folder, DataConfig(axes=("pause",)), groups=2))
    assert batch.user_words == [None, None]  # no transcript


def test_held_out_batches_have_every_segment_once(folder):
    config = DataConfig(axes=("pause", "turn"), seed=3)
    batches = list(held_out_batches(folder, config, per_axis=5, groups=2))
    found = [name for batch in batches for name in batch.segment_id]
    assert len(found) == len(set(found)) == 10
    assert [len(batch.axis) for batch in batches] == [2] * 5
    assert sorted(axis for b in batches for axis in b.axis) == ["pause"] * 5 + ["turn"] * 5
    frames = [int(n) for batch in batches for n in batch.num_frames]
    assert frames == sorted(frames, reverse=True)  # devices wait for each other least
    assert len({batch.pcm.shape for batch in batches}) == 1
    numbers = [int(n) for batch in batches for n in batch.index]
    assert sorted(numbers) == list(range(10))
    again = list(held_out_batches(folder, config, per_axis=5, groups=2))
    assert [b.segment_id for b in again] == [b.segment_id for b in batches]
    other = list(held_out_batches(folder, replace(config, seed=4), per_axis=3, groups=2))
    assert {n for b in other for n in b.segment_id} != {
        n for b in held_out_batches(folder, config, per_axis=3, groups=2) for n in b.segment_id
    }


def test_held_out_batches_say_what_is_missing(folder):
    with pytest.raises(ValueError, match=r"got 5 'turn' segments .* expected at least 6"):
        next(held_out_batches(folder, DataConfig(axes=("turn",)), per_axis=6, groups=2))
    with pytest.raises(ValueError, match=r"got 5 segments .* multiple of 2"):
        next(held_out_batches(folder, DataConfig(axes=("turn",)), per_axis=5, groups=2))


def test_context_that_no_bucket_holds_is_named(folder):
    config = DataConfig(bucket_frames=(85,), axes=("pause",), context_probability=0.5)
    with pytest.raises(ValueError, match="pause6 of 86 frames with prefix and context"):
        group_batches(folder, config, groups=1)


def test_prefix_and_buckets(folder):
    config = DataConfig(prefix_silence_s=0.0, bucket_frames=(30, 60), axes=("pause",))
    for batch in take(group_batches(folder, config, groups=1), 12):
        assert batch.segment_start_frame.tolist() == [0]
        frames = int(batch.num_frames[0])
        assert batch.pcm.shape[1] == (30 if frames <= 30 else 60) * FRAME_SAMPLES
        assert batch.pcm[0, 0] != 0
    assert DataConfig(prefix_silence_s=0.8).prefix_frames == 10
    assert DataConfig(prefix_silence_s=0.81).prefix_frames == 11


def test_a_segment_that_no_bucket_holds_is_named(folder):
    config = DataConfig(bucket_frames=(64, 80), axes=("pause",))
    with pytest.raises(ValueError, match="got segment pause6 of 84 frames with prefix and context"):
        group_batches(folder, config, groups=1)


def test_an_axis_without_segments_is_named(folder):
    config = DataConfig(split="val")
    with pytest.raises(ValueError, match=r"got no 'turn' segment in split 'val'.*are pause\)"):
        group_batches(folder, config, groups=1)


def test_a_host_that_is_not_there(folder):
    for host, num_hosts in [(2, 2), (-1, 1), (0, 0)]:
        with pytest.raises(ValueError, match="expected at least 1 and a host"):
            group_batches(folder, DataConfig(), groups=1, host=host, num_hosts=num_hosts)


def test_a_folder_without_segments(tmp_path):
    with pytest.raises(FileNotFoundError, match="moshi-jax segments extract"):
        group_batches(tmp_path, DataConfig(), groups=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("axes", ()),
        ("axes", ("pause", "pause")),
        ("prefix_silence_s", -1.0),
        ("bucket_frames", ()),
        ("bucket_frames", (128, 64)),
        ("context_probability", 1.5),
    ],
)
def test_impossible_values_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^{field}: got .*, expected "):
        DataConfig(**{field: value})
