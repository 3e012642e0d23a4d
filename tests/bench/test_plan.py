"""Plans: what lies where by arithmetic, and the real programs compiled for an absent pod."""

import functools
import json
from importlib.util import find_spec

import pytest

from bench.__main__ import BENCHMARKS
from bench.plan import PlanOptions, main, plan_row
from bench.plan_accounting import account
from bench.plan_programs import beside, flops, make_plan, resident_bytes
from bench.topology import describe, only_figures
from helium_jax import moshi_7b

libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="no compiler for TPUs")
TRAINED = 6_973_366_272  # the temporal side with its embeddings, as the reference counts it


@functools.cache
def plan(name="tpu:v5e", devices=16, **options):
    settings = {
        "mapping": "shard_map",
        "lora": None,
        "moments": "float32",
        "frames": 1024,
        "rollout_frames": 512,
        "num_generations": 16,
    }
    return make_plan(only_figures(name, devices), moshi_7b(), **(settings | options))


def test_weights_of_the_real_model_are_divided():
    parts = resident_bytes(plan())
    assert parts["master"] == pytest.approx(4 * TRAINED / 16, rel=1e-3)  # norms are whole
    assert parts["moments"] == pytest.approx(8 * TRAINED / 16, rel=1e-3)
    assert parts["reference"] == pytest.approx(2 * TRAINED / 16, rel=1e-3)
    assert parts["decoding weights"] == 2 * TRAINED
    assert parts["depth"] == 2 * (7_687_729_152 - TRAINED)
    assert parts["activations"] == 2 * 32 * 1024 * 4096
    assert parts["keys and values"] == 524_288 * 16 * 513
    assert resident_bytes(plan(moments="bfloat16"))["moments"] == pytest.approx(
        parts["moments"] / 2, rel=1e-3
    )


def test_adapters_need_no_second_copy_of_the_base():
    parts = resident_bytes(plan("tpu:v6e", 8, mapping="pmap", lora=64))
    # Two matrices of rank 64 beside each of qkv, out, gate_up and down, in 32 layers.
    adapters = 32 * 64 * ((4096 + 3 * 4096) + 2 * 4096 + (4096 + 2 * 11264) + (11264 + 4096))
    assert parts["master"] == 4 * adapters and parts["moments"] == 8 * adapters + 8
    assert parts["reference"] < 2 * TRAINED + 2e8  # the base, and adapters that are not trained


def test_operations_are_counted_once_a_pass():
    weights = 6_576_930_816 + 131_072_000
    forward = 2 * 1024 * (weights + 2 * 32 * 4096 * 1024)
    found = flops(plan())
    assert found["update"] == pytest.approx(5 * forward, rel=1e-3)
    assert found["logprobs"] == pytest.approx(16 * forward, rel=1e-3)
    assert 512 * 16 * 2 * weights < found["rollout"] < 1.2 * 512 * 16 * 2 * weights


def test_what_a_program_does_not_take_lies_beside_it():
    parts = resident_bytes(plan())
    idle = beside(plan(), parts)
    assert idle["update"] == parts["depth"] + parts["codec"]
    assert idle["rollout"] == parts["master"] + parts["moments"] + parts["reference"]
    assert idle["sync"] == idle["update"] + parts["moments"] + parts["reference"]
    adapters = plan("tpu:v6e", 8, mapping="pmap", lora=64)
    lora = resident_bytes(adapters)  # its forward reads the base
    assert beside(adapters, lora)["sync"] == lora["moments"] + lora["depth"] + lora["codec"]


@pytest.mark.parametrize(
    ("name", "devices", "compiled"),
    [("tpu:v5e", 16, 10.39e9), ("tpu:v5e", 32, 6.47e9), ("tpu:v6e", 8, 17.57e9)],
)
def test_the_arithmetic_is_near_what_the_compiler_says(name, devices, compiled):
    """The compiler's figures are of docs/benchmarks.md."""
    there = plan(name, devices)
    found = account(there, resident_bytes(there))
    assert found["update"]["bytes"] == pytest.approx(compiled, rel=0.06)
    # Three passes gather 13.4 GB of matrices and one scatters their gradient.
    assert found["update"]["sent_bytes"] == pytest.approx(
        4 * 13.416e9 * (devices - 1) / devices, rel=0.05
    )


def test_a_gpu_is_planned_without_its_compiler(tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert main(["--device", "gpu:h100", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text())["rows"]
    assert row["fits"] and row["devices"] == 8 and row["topology"] == "gpu:h100 x 8"
    assert {program["how"] for program in row["programs"].values()} == {"accounted"}
    assert set(row["programs"]) == {"update", "logprobs", "sync", "rollout"}
    bounds = {name: max(p["bound_ms"].values()) for name, p in row["programs"].items()}
    expected = bounds["rollout"] + bounds["sync"] + bounds["logprobs"] + 16 * bounds["update"]
    assert row["epoch_bound_s"] == pytest.approx(expected / 1e3)
    assert "fits" in capsys.readouterr().out


@pytest.mark.slow
def test_a_pod_that_is_too_small_is_told_what_helps(capsys):
    argv = ["--device", "tpu:v5e", "--programs", "update"]
    assert main([*argv, "--devices", "4"]) == 1
    said = capsys.readouterr().out
    assert "does not fit" in said and "--lora 64 --mapping shard_map" in said
    assert "--num-generations" not in said  # an update does not get smaller by it
    assert main([*argv, "--devices", "16"]) == 0


def test_no_device_of_that_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"'gpu:h900', expected at least 1 of .*gpu:h100"):
        main(["--device", "gpu:h900"])


@libtpu
@pytest.mark.slow
def test_the_command_plans_and_says_what_fits(tmp_path, capsys):
    path = tmp_path / "plan.json"
    argv = ["--topology", "v5e:2x2", "--preset", "nano", "--frames", "64"]
    argv += ["--rollout-frames", "16", "--num-generations", "2", "--programs", "update", "sync"]
    assert main([*argv, "--json", str(path)]) == 0
    assert "fits" in capsys.readouterr().out
    report = json.loads(path.read_text())
    (row,) = report["rows"]
    assert row["fits"] and row["devices"] == 4 and row["margin_bytes"] > 15e9
    assert report["machine"]["jax"] and report["machine"]["libtpu"]
    update = row["programs"]["update"]
    # Four matrices in two layers: each is gathered for the base, forward, and again backward; the
    # head twice, the tokens once. Sums are scattered, but the small ones of this model: those the
    # compiler may sum whole (large ones: tests/bench/test_collectives.py).
    assert 2 * 4 * 3 <= update["collectives"]["all-gather"] <= 2 * 4 * 3 + 4
    assert update["collectives"]["reduce-scatter"] >= 2 * 4
    assert update["temporary_bytes"] < update["bytes"]
    assert row["epoch_bound_s"] is None  # the rollout was not planned


@libtpu
@pytest.mark.slow
def test_what_does_not_fit_is_no_crash_but_an_answer(monkeypatch):
    options = PlanOptions(topology=("v5e:2x2",), preset="nano", programs=("update",), frames=64)
    found = describe("v5e:2x2")
    small = type(found.device)(10**6, *list(vars(found.device).values())[1:])
    row = plan_row(options, type(found)(found.name, found.platform, small, found.devices))
    assert not row["fits"] and row["margin_bytes"] < 0
    assert row["programs"]["update"]["how"] == "refused" or "bound_ms" in row["programs"]["update"]
    assert "does not fit" in row["advice"] and "update needs" in row["advice"]


def test_it_is_listed():
    assert BENCHMARKS["plan"][1] == "bench.plan:main"
