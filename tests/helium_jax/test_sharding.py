import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from helium_jax import Moshi, MoshiConfig, Sampler, Sampling, init_state, step
from helium_jax.sharding import MODEL_AXIS, param_shardings, state_shardings
from layers_jax import Precision, reset_rows, split

CONFIG = MoshiConfig(
    dim=32,
    text_card=13,
    n_q=4,
    dep_q=2,
    card=11,
    num_heads=8,
    num_layers=2,
    context=6,
    depformer_dim=16,
    depformer_dim_feedforward=36,
    depformer_num_heads=8,
    depformer_num_layers=1,
    delays=(0, 0, 1, 0, 1),
)
SAMPLING = Sampling(text=Sampler(temperature=0.9, top_k=7), audio=Sampler(temperature=1.1))
CALLS, BATCH = 10, 3


@pytest.fixture(scope="module")
def model(random_module):
    return random_module(lambda: Moshi(CONFIG, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    codes = rng.integers(0, CONFIG.card, (CALLS, BATCH, 2)).astype(np.int32)
    masks = rng.random((CALLS, BATCH)) < 0.8
    resets = rng.random((CALLS, BATCH)) < 0.15
    assert not masks.all() and resets.any()
    return codes, masks, resets


def mesh_of(count):
    return Mesh(np.array(jax.devices()[:count]), (MODEL_AXIS,))


def run(lm, params, inputs, mesh=None, split_depth=False):
    """Tokens, log-probs and the final state after calls with masks and resets in between."""
    state = init_state(lm, BATCH, seed=4)
    out_shardings = None
    if mesh is not None:
        params = jax.device_put(
            params, param_shardings(lm.config, params, mesh, split_depth=split_depth)
        )
        shardings = state_shardings(state, mesh)
        state = jax.device_put(state, shardings)
        out_shardings = (shardings, NamedSharding(mesh, PartitionSpec()))

    def call(params, state, codes, mask, reset):
        state = reset_rows(reset, init_state(lm, BATCH, seed=4), state)
        return step(lm, params, state, codes, sampling=SAMPLING, exec_mask=mask)

    program = jax.jit(call, donate_argnums=1, out_shardings=out_shardings)
    outputs = []
    with jax.set_mesh(mesh or mesh_of(1)):
        for codes, mask, reset in zip(*inputs, strict=True):
            state, output = program(params, state, codes, mask, reset)
            outputs.append(output)
    return outputs, state, params


@pytest.fixture(scope="module")
def alone(model, inputs):
    return run(*model, inputs)


@pytest.mark.parametrize(("count", "split_depth"), [(1, True), (2, False), (4, True), (8, True)])
def test_any_number_of_devices_gives_the_tokens_of_one(model, inputs, alone, count, split_depth):
    outputs, state, params = run(*model, inputs, mesh_of(count), split_depth)
    for got, expected in zip(outputs, alone[0], strict=True):
        np.testing.assert_array_equal(got.tokens, expected.tokens)
        np.testing.assert_array_equal(got.drawn, expected.drawn)
        np.testing.assert_allclose(got.log_probs, expected.log_probs, atol=2e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), atol=1e-4),
        state,
        alone[1],
    )
    ring = state.caches[0].keys
    assert ring.addressable_shards[0].data.shape[1] == CONFIG.num_heads // count
    depth = params["depth"]["layers"][0]["mlp"][1]["down"]["kernel"]
    rows = depth.addressable_shards[0].data.shape[0]
    assert rows == depth.shape[0] // (count if split_depth else 1)


def test_a_layer_sums_twice_and_a_frame_twice_more(model):
    """Counted in the program: what a device sends is latency, whatever its size."""
    lm, params = model
    for split_depth, count in ((False, 2 * 2 + 2), (True, 2 * 2 + 2 + 2 * 2 * 1)):
        mesh = mesh_of(8)

        def struct(tree, shardings):
            return jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
            )

        state = init_state(lm, 1)
        shardings = state_shardings(state, mesh)
        whole = NamedSharding(mesh, PartitionSpec())
        arguments = (
            struct(params, param_shardings(CONFIG, params, mesh, split_depth=split_depth)),
            struct(state, shardings),
            jax.ShapeDtypeStruct((1, 2), jnp.int32, sharding=whole),
        )
        program = jax.jit(
            lambda params, state, codes: step(lm, params, state, codes, sampling=SAMPLING),
            out_shardings=(shardings, whole),
        )
        with jax.set_mesh(mesh):
            text = program.lower(*arguments).compile().as_text()
        collectives = [
            line
            for line in text.splitlines()
            if any(f" {kind}(" in line for kind in ("all-reduce", "all-gather", "all-to-all"))
        ]
        assert len(collectives) == count, "\n".join(collectives)


def test_int8_and_adapters_are_divided_like_their_kernels():
    config = dataclasses.replace(CONFIG, num_layers=1)
    lm = nnx.eval_shape(lambda: Moshi(config, precision=Precision.int8_weights(), rngs=nnx.Rngs(0)))
    _, params = split(lm)
    shardings = param_shardings(config, params, mesh_of(4))["temporal"]["layers"][0]
    assert shardings["attention"]["qkv"]["kernel"].spec == PartitionSpec(None, MODEL_AXIS)
    assert shardings["attention"]["qkv"]["scale"].spec == PartitionSpec(MODEL_AXIS)
    assert shardings["mlp"]["gate_up"]["scale"].spec == PartitionSpec(None, MODEL_AXIS)
    assert shardings["mlp"]["down"]["kernel"].spec == PartitionSpec(MODEL_AXIS)
    assert shardings["mlp"]["down"]["scale"].spec == PartitionSpec()


def test_what_cannot_be_divided_is_refused_with_its_number():
    config = dataclasses.replace(CONFIG, num_heads=4)
    with pytest.raises(
        ValueError, match=r"num_heads / kv_repeat is 4, expected multiples of the 8"
    ):
        param_shardings(config, {}, mesh_of(8))
    narrow = dataclasses.replace(CONFIG, depformer_num_heads=2)
    param_shardings(narrow, {}, mesh_of(8))
    with pytest.raises(ValueError, match="depth transformer's key heads is 2"):
        param_shardings(narrow, {}, mesh_of(8), split_depth=True)
    with pytest.raises(ValueError, match="axes data, expected one called 'model'"):
        state_shardings({}, Mesh(np.array(jax.devices()[:2]), ("data",)))
