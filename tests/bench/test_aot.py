"""`bench aot` as users call it, and the limits that the step keeps on described hardware."""

import json

import pytest

from bench.__main__ import main as bench
from bench.compiled import MIB, Case, compile_case
from layers_jax.command import run_command


def run(*arguments):
    return run_command("moshi-jax bench", bench, ["aot", *arguments])


def test_rows_say_what_a_frame_moves_there(tmp_path, capsys):
    pytest.importorskip("libtpu")
    target = tmp_path / "rows.json"
    devices = ["--topology", "v5e:1x1", "--dtype", "bf16,int8"]
    assert run("--preset", "nano", *devices, "--batch", "2", "--json", str(target)) == 0
    rows = json.loads(target.read_text())["rows"]
    assert [row["dtype"] for row in rows] == ["bf16", "int8"]
    for row in rows:
        assert row["fits"] and row["aliases_state"] and row["copies"] == []
        assert row["bytes_ratio"] == pytest.approx(
            row["bytes_moved"] / row["bytes_needed"], rel=1e-3
        )
        assert sum(row["bytes_by_class"].values()) == row["bytes_moved"]
        assert row["bound_ms"] == pytest.approx(row["bytes_moved"] / 819e9 * 1e3)
        assert not row["double_precision"] and row["host_transfers"] == 0
        # Weights leave the rest of the memory to sessions, each with its rings.
        ring = 2 * 2 * 40 * 64 * 2  # layers, keys and values, frames, width, bytes
        assert 0 < row["sessions"] < row["memory_bytes"] / ring
    weights = [row["bytes_by_class"]["temporal"] for row in rows]
    assert 0.4 * weights[0] < weights[1] < 0.7 * weights[0]
    assert "v5e:1x1      int8" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "v5e-8"), "unknown topology 'v5e-8'"),
        (("--preset", "moshi"), "--preset is moshi, expected some of moshi-7b, personaplex-7b"),
        (("--dtype", "fp4"), "--dtype is fp4, expected some of bf16, int8"),
        (("--batch", "1,none"), "--batch is 'none', expected a number of sessions"),
    ],
)
def test_bad_input_is_one_line(arguments, message, capsys):
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.slow
def test_what_does_not_fit_says_by_how_much_and_what_would(tmp_path, capsys):
    pytest.importorskip("libtpu")
    target = tmp_path / "rows.json"
    assert run("--topology", "v5e:1x1", "--json", str(target)) == 0
    (row,) = json.loads(target.read_text())["rows"]
    assert not row["fits"]
    assert row["argument_bytes"] > row["memory_bytes"] == int(15.75 * 2**30)
    assert row["advice"].startswith("does not fit v5e:1x1 by at least 0.03 GiB; use --dtype int8")
    assert "v5e:2x4" in row["advice"]


# Four of the 32 temporal layers are a third of the compile. Not with int8: what a v5e then reads
# twice, whatever the number of layers, is a hundredth of the whole model and an eighth of four.
LIMITS = [
    ("v5e:1x1", "int8", 1, None, 1.04),
    ("v6e:1x1", "bf16", 1, 4, 1.04),
    ("v5p:1x1x1", "bf16", 1, 4, 1.04),
    ("v5p:1x1x1", "bf16", 16, 4, 1.17),
]


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "dtype", "batch", "layers", "limit"), LIMITS)
def test_a_frame_moves_hardly_more_than_it_must(topology, dtype, batch, layers, limit):
    pytest.importorskip("libtpu")
    row = compile_case(Case("moshi-7b", topology, dtype, batch, layers=layers))
    assert row.fits and row.aliases_state
    assert row.bytes_ratio <= limit
    assert row.copies == [] and row.host_transfers == 0 and not row.double_precision
    assert batch > 1 or row.temporary_bytes < 128 * MIB


@pytest.mark.slow
def test_a_gpu_copies_no_weights_either():
    pytest.importorskip("jax_plugins.xla_cuda12")
    row = compile_case(Case("moshi-7b", "h100:1", "bf16", 1, layers=4))
    assert row.bytes_ratio <= 1.04 and row.copies == [] and row.aliases_state
    per_layer = 17  # kernels; the other 600 are the depth transformer's and the sampler's
    assert row.kernels <= 1300 - 28 * per_layer


@pytest.mark.slow
def test_eight_chips_sum_twice_a_layer():
    pytest.importorskip("libtpu")
    row = compile_case(Case("moshi-7b", "v5e:2x4", "bf16", 1, layers=4))
    assert sum(row.collectives.values()) == 2 * 4 + 2
    split = compile_case(Case("moshi-7b", "v5e:2x4", "bf16", 1, layers=4, split_depth=True))
    assert split.bytes_moved < 0.5 * row.bytes_moved
    assert sum(split.collectives.values()) > 2 * 4 + 2 + 2 * 6 * 8 - 1
