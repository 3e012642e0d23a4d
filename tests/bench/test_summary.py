import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.summary import summarise


def summary(function, *arguments, donate=(), donated_bytes=0):
    compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    return summarise(compiled, donated_bytes)


def test_bytes_and_products_of_a_program_are_counted():
    x, w = jnp.ones((1, 300)), jnp.ones((300, 500))
    found = summary(lambda x, w: x @ w, x, w)
    assert found["dots"] == 1 and found["operations"] >= 1
    assert found["argument_bytes"] == (300 + 300 * 500) * 4
    assert found["new_output_bytes"] == 500 * 4
    assert found["moved_bytes"] >= 300 * 500 * 4
    assert [found[k] for k in ("f64", "host_transfers", "collectives", "undonated_bytes")] == [
        0
    ] * 4


def test_a_donated_argument_that_is_updated_in_place_is_no_new_output():
    cache = jnp.zeros((64, 100))

    def write(cache, row):
        return cache.at[3].set(row)

    row = jnp.ones(100)
    kept = summary(write, cache, row, donate=0, donated_bytes=cache.nbytes)
    assert kept["undonated_bytes"] == kept["new_output_bytes"] == 0
    lost = summary(write, cache, row, donated_bytes=cache.nbytes)
    assert lost["undonated_bytes"] == lost["new_output_bytes"] == cache.nbytes
    assert lost["moved_bytes"] > kept["moved_bytes"]


def test_a_loop_counts_each_time_round():
    def chain(x, w):
        return jax.lax.scan(lambda x, m: (x @ m, None), x, w)[0]

    seven, fourteen = (
        summary(chain, jnp.ones((8, 300)), jnp.ones((times, 300, 300))) for times in (7, 14)
    )
    assert seven["moved_bytes"] > 7 * 300 * 300 * 4
    assert 1.9 < fourteen["moved_bytes"] / seven["moved_bytes"] < 2.1
    assert 1.5 < fourteen["operations"] / seven["operations"] < 2.1


def test_doubles_and_calls_to_the_host_are_seen_wherever_they_hide():
    x = jnp.ones(9)

    def wide(x):
        with jax.enable_x64(True):
            return jax.lax.convert_element_type(x, jnp.float64).sum().astype(jnp.float32)

    def host(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((9,), np.float32), x)

    assert summary(wide, x)["f64"] > 0 and summary(wide, x)["host_transfers"] == 0
    assert summary(host, x)["host_transfers"] == 1 and summary(host, x)["f64"] == 0


def test_exchanges_between_devices_are_counted():
    if jax.device_count() < 2:
        pytest.skip("needs two devices (tests/conftest.py emulates eight)")
    mesh = jax.make_mesh((2,), ("x",), (jax.sharding.AxisType.Auto,))
    across = jax.sharding.NamedSharding(mesh, jax.P("x"))
    x = jax.device_put(jnp.ones((4, 8)), across)
    everywhere = jax.sharding.NamedSharding(mesh, jax.P())
    compiled = jax.jit(lambda x: x.sum(), out_shardings=everywhere).lower(x).compile()
    assert summarise(compiled, 0)["collectives"] == 1
