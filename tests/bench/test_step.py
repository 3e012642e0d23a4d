import json

import pytest

from bench.step import StepOptions, main, run, table
from bench.summary import NEVER_MORE


@pytest.fixture(scope="module")
def report():
    """Two fills of one compiled step; few frames, since times are not judged here."""
    return run(StepOptions(preset="nano", context_fill="0,1", frames=3, warmup=1, stages=False))


@pytest.mark.slow
def test_a_report_says_what_was_measured_and_where(report):
    first, full = report["rows"]
    assert report["machine"]["device"].startswith("cpu") and report["bandwidth"] > 1e8
    assert (first["context_fill"], full["context_fill"]) == (0, 1)
    for row in (first, full):
        assert len(row["frame_ms"]) == 3 and row["frame"]["max"] == max(row["frame_ms"])
        assert row["frame"]["p50"] <= row["frame"]["p99"] <= row["frame"]["max"]
        assert 0 < row["dispatch_ms"] <= row["frame"]["max"]
        assert row["budget_ms"] == 80 and 0 <= row["late"] <= 3
        assert row["floor_ms"] > 0 and row["over_floor"] > 1
        assert 0 < row["floor_bytes"] < row["counts"]["argument_bytes"]
        assert row["device_bytes"] >= row["counts"]["argument_bytes"]
        assert all(row["counts"][name] == 0 for name in NEVER_MORE)
    text = table(report)
    assert "times that" in text and "sessions keep real time" in text


@pytest.mark.slow
def test_the_command_writes_what_compare_reads(tmp_path, capsys):
    from bench.compare import main as compare

    path = tmp_path / "a.json"
    assert main(["--preset", "nano", "--counts-only", "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 1 and "frame_ms" not in rows[0] and rows[0]["counts"]["operations"] > 100
    assert compare([str(path), str(path), "--tolerance", "0"]) == 0
    assert "0 of " in capsys.readouterr().out


@pytest.mark.slow
def test_every_stage_is_timed_alone_and_a_trace_has_their_names(tmp_path):
    options = StepOptions(preset="nano", frames=2, warmup=1, trace=tmp_path / "trace", dtype="int8")
    (row,) = run(options)["rows"]
    assert list(row["stages"]) == ["encode", "temporal", "depth", "sampling", "decode"]
    assert all(figures["p50"] > 0 for figures in row["stages"].values())
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"preset": "giant"}, "unknown preset 'giant', expected one of moshi-7b"),
        ({"dtype": "f32,f8"}, "dtype is 'f32,f8', expected some of f32, bf16, int8"),
        ({"batch": "1,x"}, "batch is '1,x', expected whole numbers from 1 to 4096"),
        ({"batch": "0"}, "batch is '0', expected whole numbers from 1"),
        ({"context_fill": "0,1.5"}, "context_fill is '0,1.5', expected numbers from 0 to 1"),
        ({"frames": 0}, "frames is 0, warmup 10, expected at least 1 of each"),
    ],
)
def test_bad_input_is_refused_before_any_work(options, message):
    with pytest.raises(ValueError, match=message):
        run(StepOptions(**options))


def test_a_report_needs_a_folder_to_go_to(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder, expected one for --json"):
        main(["--json", str(tmp_path / "none" / "a.json")])
