"""Plans: what lies where by arithmetic, and the real programs compiled for an absent pod."""

import functools
import json

import pytest

from bench.__main__ import BENCHMARKS
from bench.plan import PlanOptions, main, plan_row
from bench.plan_programs import make_plan, resident_bytes, update_flops
from bench.topology import describe
from helium_jax import moshi_7b

pytest.importorskip("libtpu")
TRAINED = 6_973_366_272  # the temporal side with its embeddings, as the reference counts it


@functools.cache
def plan(name="v5e:4x4", **options):
    settings = {
        "mapping": "shard_map",
        "lora": None,
        "moments": "float32",
        "frames": 1024,
        "rollout_frames": 512,
        "num_generations": 16,
    }
    return make_plan(describe(name), moshi_7b(), **(settings | options))


def test_weights_of_the_real_model_are_divided():
    parts = resident_bytes(plan())
    assert parts["master"] == pytest.approx(4 * TRAINED / 16, rel=1e-3)  # norms are whole
    assert parts["moments"] == pytest.approx(8 * TRAINED / 16, rel=1e-3)
    assert parts["reference"] == pytest.approx(2 * TRAINED / 16, rel=1e-3)
    assert parts["decoding weights"] == 2 * 7_687_729_152
    assert parts["keys and values"] == 524_288 * 16 * 513
    assert resident_bytes(plan(moments="bfloat16"))["moments"] == pytest.approx(
        parts["moments"] / 2, rel=1e-3
    )


def test_adapters_need_no_second_copy_of_the_base():
    parts = resident_bytes(plan("v6e:2x4", mapping="pmap", lora=64))
    # Two matrices of rank 64 beside each of qkv, out, gate_up and down, in 32 layers.
    adapters = 32 * 64 * ((4096 + 3 * 4096) + 2 * 4096 + (4096 + 2 * 11264) + (11264 + 4096))
    assert parts["master"] == 4 * adapters and parts["moments"] == 8 * adapters + 8
    assert parts["reference"] < 2 * TRAINED + 2e8  # the base, and adapters that are not trained


def test_operations_are_counted_once_a_pass():
    weights = 6_576_930_816 + 131_072_000
    expected = 2 * 5 * 1024 * (weights + 2 * 32 * 4096 * 1024)
    assert update_flops(plan()) == pytest.approx(expected, rel=1e-3)


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
    # Four matrices in two layers: each is gathered for the base, forward, and again backward.
    assert update["collectives"]["all-gather"] >= 2 * 4 * 3
    assert update["temporary_bytes"] < update["bytes"]
    assert row["epoch_bound_s"] is None  # the rollout was not planned


@pytest.mark.slow
def test_what_does_not_fit_is_no_crash_but_an_answer(monkeypatch):
    options = PlanOptions(topology=("v5e:2x2",), preset="nano", programs=("update",), frames=64)
    found = describe("v5e:2x2")
    small = type(found.device)(10**6, *list(vars(found.device).values())[1:])
    row = plan_row(options, type(found)(found.name, found.platform, small, found.devices))
    assert not row["fits"] and row["margin_bytes"] < 0
    assert "does not fit (update" in row["advice"] and "--moments bfloat16" in row["advice"]


def test_it_is_listed():
    assert BENCHMARKS["plan"][1] == "bench.plan:main"
