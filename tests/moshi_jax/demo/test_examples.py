"""Which segments stand for an axis, and what is drawn and written of them."""

import numpy as np
import pytest

from convert import read_configs
from grpo.bootstrap import Comparison, Estimate
from grpo.heldout import SegmentScore
from grpo.records import ManifestEntry, write_manifest
from grpo.samples import Sample
from grpo.segments import Segment
from helium_jax import TextTokenizer
from mimi_jax import read_audio
from moshi_jax.demo.comparison import AxisResult
from moshi_jax.demo.examples import choose, save_picture, timelines, write_examples
from moshi_jax.demo.experiment import Recipe, Result
from moshi_jax.stream import embedded_checkpoint


def scores(values, agent=()):
    return [
        SegmentScore(
            segment_id=f"c/1/{axis}/{n}",
            axis=axis,
            rewards={"timing": np.array([value, -9.0]), "judge": np.array([5.0 - value, 0.0])},
            kl=0.0,
            agent=agent,
        )
        for axis, own in values.items()
        for n, value in enumerate(own)
    ]


def test_the_median_of_those_that_improved_stands_for_its_axis():
    base = scores({"turn": [0, 0, 0, 0, 0], "pause": [0, 0, 0]})
    tuned = scores({"turn": [-5, 3, 1, 2, -1], "pause": [-3, -1, -2]})
    # turn: of +1, +2 and +3 the second; pause: none improved, the median of all.
    assert choose(base, tuned) == {"pause": 5 + 2, "turn": 3}


@pytest.fixture
def folder(tmp_path):
    segments = [
        Segment(
            axis="turn",
            conversation="c",
            x_channel=1,
            start_s=4.0,
            end_s=8.0,
            labels={"user_turn_end_s": 6.0},
            user_ipus=((3.0, 6.0),),
        )
    ]
    write_manifest(
        tmp_path,
        [
            ManifestEntry(
                id="c/1/turn/0",
                split="train",
                segment=segment,
                n_context_samples=48_000,
                shard="s",
                row=0,
            )
            for segment in segments
        ],
    )
    return tmp_path


def test_speech_is_drawn_where_it_was_in_the_recording(folder):
    base, tuned = (scores({"turn": [v]}, agent=((-1.0, 0.5), (2.0, 3.0))) for v in (-1.0, -0.25))
    (panel,) = timelines(folder, base, tuned)
    assert panel.start_s == 4.0 and panel.window == (4.0, 8.0)
    assert [lane.name for lane in panel.lanes] == ["user", "base", "tuned"]
    assert panel.lanes[1].ipus == ((4.0, 4.5), (6.0, 7.0))  # what was said before is cut off
    assert "-1.00 → -0.25" in panel.title


def test_the_picture(folder, tmp_path):
    pytest.importorskip("matplotlib")
    base, tuned = (scores({"turn": [value]}) for value in (-1.0, -0.2))
    estimate = Estimate(mean=0.0, low=0.0, high=0.0)
    comparison = Comparison(
        before=estimate, after=estimate, change=estimate, p=1.0, segments=1, clusters=1
    )
    result = Result(
        recipe=Recipe(),
        axes=(AxisResult(axis="turn", reward="timing", comparison=comparison),),
        kl=0.1,
        kl_by_axis={},
        updates=4,
        rollouts=2,
        curves={"rewards/turn/timing": [-1.0, None, -0.5, -0.2], "kl": [0.0, 0.1, 0.1, 0.2]},
    )
    path = tmp_path / "picture.png"
    save_picture(path, result, timelines(folder, base, tuned))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert result.to_dict()["axes"][0]["comparison"]["p"] == 1.0


def test_examples_are_stereo_with_the_agents_words(tmp_path):
    tokenizer = TextTokenizer(read_configs(embedded_checkpoint()).tokenizer)
    good, day = tokenizer.encode("good"), tokenizer.encode("day")
    sample = Sample(
        "c/1/turn/0",
        "turn",
        np.full(2400, 0.25, np.float32),
        np.full(2400, -0.5, np.float32),
        np.array([3, *good, 0, *day, -1]),
    )
    write_examples(tmp_path / "listen", "base", [sample], tokenizer)
    pcm = read_audio(tmp_path / "listen" / "turn-base.wav", sample_rate=24_000, channels=2)
    np.testing.assert_allclose(pcm[:, 100], [0.25, -0.5], atol=1e-3)  # user left, agent right
    text = (tmp_path / "listen" / "turn-base.txt").read_text()
    assert text == "c/1/turn/0\ngood day\n"
