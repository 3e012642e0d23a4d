"""Small programs whose traffic is known, for this CPU and for TPUs and a GPU that are not here."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bench.topology import describe
from bench.traffic import count

MIB = 2**20
TARGETS = [
    pytest.param("cpu"),
    pytest.param("v5e:1x1"),
    pytest.param("v5p:1x1x1"),
    pytest.param("h100:1"),
]


def compiled(target, function, *arguments, donate=()):
    """The traffic of a function compiled for `target`; arguments are (shape, dtype)."""
    if target == "cpu":
        structs = [jax.ShapeDtypeStruct(*argument) for argument in arguments]
        return count(jax.jit(function, donate_argnums=donate).lower(*structs).compile().as_text())
    pytest.importorskip("jax_plugins.xla_cuda12" if target == "h100:1" else "libtpu")
    topology = describe(target)
    sharding = NamedSharding(topology.mesh(x=1), PartitionSpec())
    structs = [jax.ShapeDtypeStruct(*argument, sharding=sharding) for argument in arguments]
    lowered = jax.jit(function, donate_argnums=donate).lower(*structs)
    return count(topology.compile(lowered).as_text())


BF16, F32, I32 = jnp.bfloat16, jnp.float32, jnp.int32


@pytest.mark.parametrize("target", TARGETS)
def test_a_product_reads_its_operands_and_writes_its_result(target):
    def product(x, w):
        return jnp.matmul(x, w, preferred_element_type=F32)

    traffic = compiled(target, product, ((128, 2048), F32), ((2048, 4096), F32))
    sizes = 128 * 2048 * 4, 2048 * 4096 * 4, 128 * 4096 * 4
    assert traffic.by_argument()["w"] == sizes[1]
    # A GPU may add the partial sums of a split product.
    assert sum(sizes) <= traffic.total <= (2.2 if target == "h100:1" else 1.01) * sum(sizes)
    assert traffic.copies() == [] and traffic.host_transfers() == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_loop_counts_each_time_round(target):
    def chain(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    traffic = compiled(target, chain, ((64, 1024), F32), ((24, 1024, 1024), F32))
    weights = 24 * 1024 * 1024 * 4
    assert weights <= traffic.by_argument()["weights"] <= 1.01 * weights
    if target in ("cpu", "h100:1"):  # each slice of the stack is copied, then read
        assert traffic.total > 2.9 * weights
    else:
        assert traffic.total < 1.5 * weights


@pytest.mark.parametrize("target", TARGETS)
def test_an_update_in_place_moves_the_update_and_a_copy_moves_it_all(target):
    def write(cache, new, at):
        return cache.at[jnp.arange(4), :, at].set(new, mode="drop"), new * 2

    arguments = ((4, 8, 4096, 128), F32), ((4, 8, 128), F32), ((4,), I32)
    cache = 4 * 8 * 4096 * 128 * 4
    kept = compiled(target, write, *arguments, donate=0)
    assert kept.by_argument()["cache"] < 0.02 * cache
    assert kept.copies(MIB) == []
    copied = compiled(target, write, *arguments)
    # On one core the copy and the update may be one kernel: counted as its writes at least.
    assert copied.total >= cache
    assert copied.copies(cache) or copied.largest_write().writes.get(None, 0) >= cache


@pytest.mark.parametrize("target", TARGETS)
def test_looking_up_rows_reads_rows(target):
    def rows(table, ids):
        return table[ids] * 2

    traffic = compiled(target, rows, ((32_000, 1024), F32), ((16,), I32))
    assert 16 * 4096 <= traffic.by_argument()["table"] <= 17 * 4096


def test_prefetches_into_on_chip_memory_count_once():
    def chain(x, a, b, c):
        return jnp.tanh(jnp.tanh(x @ a) @ b) @ c

    shapes = [((8, 4096), BF16)] + [((4096, 4096), BF16)] * 3
    traffic = compiled("v5e:1x1", chain, *shapes)
    assert any(o.opcode in ("copy-start", "slice-start") for o in traffic.operations)
    assert traffic.total == pytest.approx(3 * 4096 * 4096 * 2, rel=0.01)
    assert traffic.copies(MIB) == []


@pytest.mark.parametrize("target", ["v5e:2x4"])
def test_collectives_are_counted_with_what_they_carry(target):
    pytest.importorskip("libtpu")
    topology = describe(target)
    mesh = topology.mesh(model=8)

    def sharded(shape, *spec):
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.ShapeDtypeStruct(shape, BF16, sharding=sharding)

    def two_layers(x, a, b):
        for _ in range(2):
            x = jnp.tanh(x @ a) @ b
        return x

    arguments = (
        sharded((8, 4096)),
        sharded((4096, 8192), None, "model"),
        sharded((8192, 4096), "model"),
    )
    lowered = jax.jit(two_layers).lower(*arguments)
    traffic = count(topology.compile(lowered).as_text())
    assert sum(traffic.collectives().values()) == 2
    assert 2 * 8 * 4096 * 2 <= traffic.payload() <= 2 * 8 * 4096 * 4
    weights = 2 * 4096 * 8192 * 2 // 8
    assert traffic.total >= 2 * weights * 0.5  # a layer's weights may stay on chip for the second


def test_a_callback_to_the_host_is_found():
    def talks(x):
        jax.debug.callback(print, x[0])
        return x * 2

    def silent(x):
        return x * 2

    assert compiled("v5e:1x1", silent, ((1024,), F32)).host_transfers() == []
    assert compiled("v5e:1x1", talks, ((1024,), F32)).host_transfers() != []


def test_double_precision_shows_in_the_types():
    with jax.enable_x64(True):
        traffic = compiled("cpu", lambda x: x.astype(jnp.float64) + 1e-20, ((8,), F32))
    assert "f64" in traffic.dtypes
    assert "f64" not in compiled("cpu", lambda x: x + 1e-20, ((8,), F32)).dtypes


def test_a_loop_without_a_known_end_is_refused():
    def search(x):
        return jax.lax.while_loop(lambda x: x[0] < 5, lambda x: x * x, x)

    with pytest.raises(ValueError, match="no known trip count"):
        compiled("cpu", search, ((8,), F32))


def test_rings_that_flow_through_a_scan_are_written_whole():
    """The regression that a formulation may hide: the same numbers, twice the bytes and more."""
    layers, batch, slots, width = 4, 4, 2048, 512

    def attend(x, cache):
        weights = jax.nn.softmax(jnp.einsum("bh,bch->bc", x, cache))
        return jnp.einsum("bc,bch->bh", weights, cache)

    def scanned(caches, x, at):
        def body(x, cache):
            cache = jnp.where(jnp.arange(slots)[None, :, None] == at, x[:, None], cache)
            return attend(x, cache), cache

        x, caches = jax.lax.scan(body, x, caches)
        return caches, x

    def listed(caches, x, at):
        written = []
        for layer in range(layers):
            written.append(caches[layer].at[:, at].set(x))
            x = attend(x, written[-1])
        return written, x

    ring = jax.ShapeDtypeStruct((batch, slots, width), F32)
    pytest.importorskip("libtpu")
    topology = describe("v5e:1x1")
    sharding = NamedSharding(topology.mesh(x=1), PartitionSpec())

    def ratio(function, caches):
        arguments = (
            caches,
            jax.ShapeDtypeStruct((batch, width), F32),
            jax.ShapeDtypeStruct((), I32),
        )
        placed = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments
        )
        lowered = jax.jit(function, donate_argnums=0).lower(*placed)
        total = count(topology.compile(lowered).as_text()).total
        return total / (layers * batch * slots * width * 4)

    stacked = jax.ShapeDtypeStruct((layers, batch, slots, width), F32)
    in_place = ratio(listed, [ring] * layers)
    assert in_place < 2.01  # scores and sums each read the ring, the update writes a row
    assert ratio(scanned, stacked) > 1.4 * in_place
