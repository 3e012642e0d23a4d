"""Regressions are planted in a small model's step, and must be found in the program alone."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bench.compare import compare, main, ratio_of_medians
from bench.summary import summarise
from helium_jax import Moshi, MoshiConfig, Sampling, init_state, step

BATCH = 2


def report(counts, frame_ms=None, device="cpu cpu", **row):
    timed = {} if frame_ms is None else {"frame_ms": list(frame_ms), "context_fill": 0.0}
    one = {"model": "m", "dtype": "f32", "batch": BATCH, "counts": counts, **timed, **row}
    return {"kind": "step", "machine": {"device": device}, "rows": [one]}


def worse(before, after, tolerance=0.05, **options):
    found = compare(before, after, tolerance=tolerance, **options)
    return {finding.what for finding in found if finding.worse}


@pytest.fixture(scope="module")
def model(random_module):
    config = MoshiConfig(
        dim=16, text_card=13, n_q=2, dep_q=1, card=11, num_heads=2, num_layers=2, context=200,
        depformer_dim=8, depformer_dim_feedforward=33, depformer_num_heads=2,
        depformer_num_layers=1, delays=(0, 0, 0),
    )  # fmt: skip
    return random_module(lambda: Moshi(config, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def counts_of(model):
    """`counts_of(plant, donate)`: counts of the step with something done to what it returns."""
    lm, params = model

    def make(plant=None, donate=1):
        def run(params, state, codes):
            after, out = step(lm, params, state, codes, sampling=Sampling.greedy())
            return (after, out) if plant is None else plant(state, after, out)

        state, codes = init_state(lm, BATCH), jnp.zeros((BATCH, 1), jnp.int32)
        donated = () if donate is None else donate
        compiled = jax.jit(run, donate_argnums=donated).lower(params, state, codes).compile()
        return summarise(compiled, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))

    return make


@pytest.fixture(scope="module")
def good(counts_of):
    return counts_of()


def test_the_same_step_again_is_no_regression(good, counts_of):
    assert worse(report(good), report(counts_of()), tolerance=0.0) == set()
    assert [good[k] for k in ("f64", "host_transfers", "undonated_bytes")] == [0, 0, 0]


def through_a_scan(state, after, out):
    """The caches of all layers as xs and ys of a scan that writes one slot: copies all of them."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *after.caches)

    def layer(carry, cache):
        return carry, jax.tree.map(lambda leaf: leaf.at[:, :, 0].add(1.0), cache)

    _, again = jax.lax.scan(layer, 0, stacked)
    caches = [jax.tree.map(lambda leaf, i=i: leaf[i], again) for i in range(len(after.caches))]
    return replace(after, caches=caches), out


def to_the_host(state, after, out):
    seen = jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((BATCH,), jnp.bool_), out.valid)
    return after, replace(out, valid=seen)


def in_double(state, after, out):
    with jax.enable_x64(True):
        wide = jax.lax.convert_element_type(out.log_probs, jnp.float64)
        narrow = jax.lax.convert_element_type(jnp.exp(wide), jnp.float32)
    return after, replace(out, log_probs=narrow)


def with_a_copy(state, after, out):
    """The old cache is still wanted after the new one was written."""
    return after, (out, state.caches[0].keys)


@pytest.mark.parametrize(
    "plant, found",
    [
        (through_a_scan, "moved_bytes"),
        (to_the_host, "host_transfers"),
        (in_double, "f64"),
        (with_a_copy, "new_output_bytes"),
    ],
)
def test_a_planted_regression_is_caught_without_running_anything(
    good, counts_of, plant, found, tmp_path, capsys
):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, counts in zip(paths, (good, counts_of(plant)), strict=True):
        path.write_text(json.dumps(report(counts)))
    assert main([str(path) for path in paths]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("WORSE") and f" {found} " in line for line in lines)
    assert main([str(paths[0]), str(paths[0])]) == 0


def test_a_state_that_is_not_donated_is_caught(good, counts_of):
    lost = counts_of(donate=None)
    assert {"undonated_bytes", "new_output_bytes"} <= worse(report(good), report(lost))


def test_counts_may_grow_within_the_tolerance_and_some_not_at_all():
    before = {"operations": 100, "moved_bytes": 10**6, "f64": 0, "collectives": 4}
    same = {"operations": 105, "moved_bytes": 1_050_000, "f64": 0, "collectives": 4}
    assert worse(report(before), report(same)) == set()
    grown = {"operations": 106, "moved_bytes": 1_060_000, "f64": 1, "collectives": 5}
    assert worse(report(before), report(grown)) == set(grown)
    assert worse(report(before), report({"host_transfers": 1})) == {"host_transfers"}


def test_scatter_alone_is_no_regression_and_a_slower_step_is():
    rng = np.random.default_rng(0)
    frames = 10 + rng.exponential(2, 200)
    again = 10 + rng.exponential(2, 200)
    assert worse(report({}, frames), report({}, again)) == set()
    assert worse(report({}, frames), report({}, again * 1.3)) == {"frame p50"}
    assert worse(report({}, frames), report({}, again * 1.3), tolerance=0.5) == set()
    few = worse(report({}, frames[:3]), report({}, frames[:3] * [1.0, 1.3, 0.9]))
    assert few == set()
    assert worse(report({}, frames), report({}, again * 9), counts_only=True) == set()


def test_the_interval_holds_the_ratio():
    ratio, low, high = ratio_of_medians(np.arange(1.0, 100), 2 * np.arange(1.0, 100))
    assert ratio == 2 and 1.2 < low < 2 < high < 3.2


def test_what_cannot_be_compared_is_refused(tmp_path):
    counts = {"operations": 1}
    with pytest.raises(ValueError, match=r"no row in common: got \['m f32 2'\] and \['x f32 2'\]"):
        list(compare(report(counts), report(counts, model="x"), tolerance=0))
    with pytest.raises(
        ValueError, match=r"of cpu cpu and tpu v5, expected one device.*counts-only"
    ):
        list(compare(report(counts, [1]), report(counts, [1], device="tpu v5"), tolerance=0))
    with pytest.raises(ValueError, match="tolerance is -1, expected 0 or more"):
        list(compare(report(counts), report(counts), tolerance=-1))
    (tmp_path / "x.json").write_text("[1]")
    (tmp_path / "y.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json is no report of `bench step --json`"):
        main([str(tmp_path / "x.json")] * 2)
    with pytest.raises(ValueError, match=r"y\.json is not JSON"):
        main([str(tmp_path / "y.json")] * 2)
