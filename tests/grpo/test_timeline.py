"""Pictures of segments: what is in them, and that they are files."""

import json
from pathlib import Path

import numpy as np
import pytest

from grpo.records import ManifestEntry, SegmentRecord
from grpo.segments import FRAME_SAMPLES, Segment
from grpo.timeline import Timeline, envelope, save_png
from layers_jax.command import run_command
from rewards import Dialogue

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample" / "conversation.flac"


def entry(axis="turn", labels=None):
    segment = Segment(
        axis=axis,
        conversation="call.wav",
        x_channel=1,
        start_s=8.0,
        end_s=20.0,
        labels={"user_turn_end_s": 14.0} if labels is None else labels,
        user_ipus=((7.5, 10.0), (10.4, 14.0)),
        agent_ipus=((14.2, 19.0),),
    )
    return ManifestEntry(
        id="x", split="train", segment=segment, n_context_samples=48_000, shard="s", row=0
    )


@pytest.fixture
def axes():
    figure = pytest.importorskip("matplotlib.figure")
    return figure.Figure().subplots()


def texts(axes):
    return [text.get_text().strip() for text in axes.texts]


def bars(axes):
    """(first, last) time of every bar, by lane."""
    return [
        [(path.get_extents().x0, path.get_extents().x1) for path in collection.get_paths()]
        for collection in axes.collections
        if type(collection).__name__ == "PolyCollection"
    ]


def test_the_window_its_context_and_who_speaks(axes):
    Timeline.of_segment(entry()).draw(axes)
    assert axes.get_xlim()[0] == 6.0  # two seconds of context
    assert axes.get_xlim()[1] > 20.0
    assert [label.get_text() for label in axes.get_yticklabels()] == ["user", "agent"]
    assert bars(axes) == [[(7.5, 10.0), (10.4, 14.0)], [(14.2, 19.0)]]
    assert texts(axes) == ["context", "user turn end"]
    lines = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() != "-"]
    assert lines == [14.0]
    # Brackets: one utterance each, though the user pauses.
    brackets = [
        (line.get_xdata()[0], line.get_xdata()[-1])
        for line in axes.lines
        if len(line.get_xdata()) == 4
    ]
    assert brackets == [(7.5, 14.0), (14.2, 19.0)]
    assert axes.get_title(loc="left").startswith("turn   call.wav   user on channel 1")


@pytest.mark.parametrize(
    ("labels", "spans"),
    [
        ({"pauses": [[9.0, 9.5], [11.0, 11.8]]}, [(9.0, 9.5), (11.0, 11.8)]),
        ({"interruption": [12.0, 14.0]}, [(12.0, 14.0)]),
        ({"backchannels": []}, []),
    ],
)
def test_labels_are_spans(axes, labels, spans):
    Timeline.of_segment(entry(labels=labels)).draw(axes)
    found = [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
    np.testing.assert_allclose(found, [(6.0, 8.0), *spans])


def test_a_model_is_drawn_in_its_place_and_scored(axes):
    said = Dialogue(duration_s=12.0, agent=((6.5, 9.0),), user_turn_end_s=6.0)
    Timeline.of_segment(entry(), generated=said).draw(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["user", "agent", "model"]
    assert bars(axes)[2] == [(14.5, 17.0)]
    assert axes.get_title(loc="right") == "turn_taking -0.50"


def test_a_reward_that_is_missing_says_so(axes):
    said = Dialogue(duration_s=12.0)  # without the label
    Timeline.of_segment(entry(), generated=said).draw(axes)
    assert axes.get_title(loc="right") == "turn_taking missing"


def test_an_envelope_bounds_the_waveform():
    pcm = np.zeros(48_000, np.int16)
    pcm[24_000:36_000] = np.tile(np.array([1000, -500], np.int16), 6_000)
    time_s, low, high = envelope(pcm, 3.0)
    loud = (time_s > 4.0) & (time_s < 4.5)
    assert (time_s[0], time_s[-1]) == (pytest.approx(3.0, abs=0.01), pytest.approx(5.0, abs=0.01))
    np.testing.assert_allclose(high[loud], 1.0)
    np.testing.assert_allclose(low[loud], -0.5)
    assert not high[~loud].any()


def test_a_png_is_written_and_the_same_every_time(tmp_path):
    pytest.importorskip("matplotlib")
    samples = 48_000 + 150 * FRAME_SAMPLES
    pcm = np.random.default_rng(0).integers(-3000, 3000, samples).astype(np.int16)
    record = SegmentRecord(id="x", segment=entry().segment, user=pcm, n_context_samples=48_000)
    picture = Timeline.of_segment(entry(), record)
    for name in ("a.png", "b.png"):
        save_png(tmp_path / name, [picture, picture])
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert data == (tmp_path / "b.png").read_bytes()
    save_png(tmp_path / "c.png", [Timeline.of_segment(entry())] * 2)
    assert (tmp_path / "c.png").read_bytes() != data  # the waveform is in the picture


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"got suffix '\.pdf', expected \.png"):
        save_png(tmp_path / "a.pdf", [])
    with pytest.raises(ValueError, match="got no segment"):
        save_png(tmp_path / "a.png", [])


def test_inspect_draws_a_folder(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("soundfile")
    from grpo.segments_cli import main

    def run(*argv):
        return run_command("moshi-jax segments", main, [str(a) for a in argv])

    folder = tmp_path / "out"
    assert run("extract", SAMPLE, folder, "--axes", "turn", "--store-agent") == 0
    capsys.readouterr()
    assert run("inspect", folder, "--png", tmp_path / "a.png", "--limit", "2") == 0
    assert capsys.readouterr().out == f"drew 2 of 4 segment(s) to {tmp_path / 'a.png'}\n"
    assert run("inspect", folder, "--format", "jsonl") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"name": first["id"], "duration_s": 12.0, "agent": [[1, 3]]}))
    png = tmp_path / "b.png"
    assert run("inspect", folder, "--png", png, "--generated", said) == 0
    assert capsys.readouterr().out == f"drew 1 of 1 segment(s) to {png}\n"
    said.write_text('{"name": "other", "duration_s": 1}')
    assert run("inspect", folder, "--png", png, "--generated", said) == 1
    assert "got no name of a segment in" in capsys.readouterr().err
    assert run("inspect", folder, "--limit", "0") == 1
    assert "limit: got 0" in capsys.readouterr().err
