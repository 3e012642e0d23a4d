"""`moshi-jax segments`: what it prints, and its exit codes."""

import json
from pathlib import Path

import pytest

from grpo.records import ManifestEntry, write_manifest
from grpo.segments import Segment
from grpo.segments_cli import labels_text, main, summary_text, table
from layers_jax.command import run_command

SAMPLE = Path(__file__).resolve().parents[2] / "moshi_jax" / "sample" / "conversation.flac"

TABLE = """\
axis   split  conversation  user  start    end  length  labels
pause  train  a.wav         1      1.04   7.04    6.00  pauses 2.00-2.50 4.00-4.25
turn   val    b.wav         0     10.00  22.00   12.00  user_turn_end_s 16.50
pause: 1 segments, 6.0 s
turn: 1 segments, 12.0 s"""


def run(*argv):
    return run_command("moshi-jax segments", main, argv)


@pytest.fixture
def entries():
    shared = {"n_context_samples": 0, "row": 0}
    pause = Segment(
        axis="pause",
        conversation="a.wav",
        x_channel=1,
        start_s=1.04,
        end_s=7.04,
        labels={"pauses": [[2.0, 2.5], [4.0, 4.25]]},
    )
    turn = Segment(
        axis="turn",
        conversation="b.wav",
        x_channel=0,
        start_s=10.0,
        end_s=22.0,
        labels={"user_turn_end_s": 16.5},
    )
    return [
        ManifestEntry(id="1", split="train", segment=pause, shard="p", **shared),
        ManifestEntry(id="2", split="val", segment=turn, shard="t", **shared),
    ]


def test_extract_then_inspect(tmp_path, capsys):
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    flags = ["--axes", "pause", "turn", "--selection.max-per-conversation", "3"]
    assert run("extract", str(SAMPLE), str(tmp_path / "out"), *flags) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("1 recording(s), ")
    assert f"wrote {tmp_path / 'out'}\n" in printed.out
    assert "listening: 1 of 1 recording(s)\n" in printed.err
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["axes"] == ["pause", "turn"]
    assert config["selection"]["max_per_conversation"] == 3

    assert run("inspect", str(tmp_path / "out")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("pause  train") for line in lines) == 3
    assert sum(line.startswith("turn   train") for line in lines) == 3

    assert run("extract", str(SAMPLE), str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"moshi-jax segments: {tmp_path / 'out'}: got something there already")


def test_table(entries):
    assert table(entries) == TABLE
    assert table([]).split() == TABLE.splitlines()[0].split()


def test_inspect_sorts_and_filters(tmp_path, entries, capsys):
    write_manifest(tmp_path, reversed(entries))
    assert run("inspect", str(tmp_path)) == 0
    assert capsys.readouterr().out == TABLE + "\n"
    assert run("inspect", str(tmp_path), "--axis", "turn", "--format", "jsonl") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == entries[1].to_dict()


def test_labels_text():
    assert labels_text({"backchannels": ((1.0, 1.5),)}) == "backchannels 1.00-1.50"
    assert labels_text({"interruption": (1.0, 2.0)}) == "interruption 1.00-2.00"


def test_summary_names_everything_that_was_left_out():
    text = summary_text(
        {
            "segments": {"pause": {"train": 3, "val": 1}},
            "segment_hours": {"pause": 0.25},
            "found": {"pause": 14, "turn": 2},
            "rejects": {"pause/the agent speaks": 12, "turn/shorter than tau_turn_s": 5},
            "recordings": 7,
            "recording_hours": 1.5,
            "left_out": 2,
            "bad_files": [{"file": "x.wav", "reason": "empty"}],
            "bad_transcripts": [{"file": f"{n}", "reason": "JSON"} for n in range(12)],
        }
    )
    assert text.splitlines() == [
        "7 recording(s), 1.5 hours",
        "axis   found  train  val   hours",
        "pause     14      3    1  0.2500",
        "turn       2      0    0  0.0000",
        "not taken:",
        "12  pause/the agent speaks",
        " 5  turn/shorter than tau_turn_s",
        "2 recording(s) left out: a speaker is in val",
        "skipped x.wav: empty",
        *(f"without transcript {n}: JSON" for n in range(10)),
        "without transcript: 2 more, all in summary.json",
    ]


def test_failures_are_one_line_and_exit_code_1(tmp_path, capsys):
    for argv, message in [
        (["inspect", str(tmp_path)], "cannot read segments: got no"),
        (["inspect", str(tmp_path), "--axis", "bc"], "axis: got 'bc', expected one of pause"),
        (["extract", str(tmp_path / "no"), str(tmp_path / "out")], "got nothing there, expected"),
        (["extract", str(SAMPLE), str(tmp_path / "o"), "--axes", "bc"], "axes: got ('bc',)"),
    ]:
        assert run(*argv) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("moshi-jax segments: ")
        assert error.count("\n") == 1


def test_usage(capsys):
    assert run("extract", "only-a-source") == 2
    assert run() == 2
    capsys.readouterr()
    assert run("--help") == 0
    help_text = capsys.readouterr().out
    assert "extract" in help_text
    assert "inspect" in help_text
