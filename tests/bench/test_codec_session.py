import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bench.codec_session import Ours, compile_s
from bench.random_codec import noise_pcm, random_codec
from bench.topology import describe
from bench.traffic import count
from layers_jax import split
from mimi_jax import decode_step, encode_step, init_state, nano


@pytest.fixture(scope="module")
def session():
    return Ours(*random_codec(nano()), batch=2)


def test_a_session_gives_what_it_gives_frame_by_frame_and_as_a_file(session):
    pcm = noise_pcm(3 * 1920)
    whole = session.encode_file(pcm)
    session.reset()
    both = np.stack([pcm.reshape(3, -1), np.zeros((3, 1920), np.float32)], axis=1)
    frames = np.stack([session.encode_batch(frame)[0] for frame in both], axis=1)
    np.testing.assert_array_equal(frames, whole)
    session.reset()
    codes = np.repeat(whole.T[:, None], 2, axis=1)
    heard = np.concatenate([session.decode_batch(frame)[1] for frame in codes])
    np.testing.assert_allclose(heard, session.decode_file(whole), atol=1e-5)
    assert session._encode._cache_size() == session._decode._cache_size() == 1


def test_compiling_is_timed(session):
    assert compile_s(session) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e:1x1", "v6e:1x1"])
def test_a_frame_compiled_for_a_tpu_stays_on_it_and_copies_no_ring(target):
    """Wide enough that a ring is the largest thing a copy could be of."""
    pytest.importorskip("libtpu")
    import dataclasses

    from flax import nnx

    from layers_jax.functional import abstract
    from mimi_jax import Mimi

    small = nano()
    wide = dataclasses.replace(small.transformer, context=500, num_layers=1)
    config = dataclasses.replace(small, transformer=wide)
    mimi, topology = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0))), describe(target)
    sharding = NamedSharding(topology.mesh(x=1), PartitionSpec())

    def on_device(tree):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
        )

    def frame(params, state, pcm, mask):
        state, codes = encode_step(mimi, params, state, pcm, mask)
        state, heard = decode_step(mimi, params, state, codes, mask)
        return state, codes, heard

    state = jax.eval_shape(lambda: init_state(mimi, 1))
    given = (state, jnp.zeros((1, 1920)), jnp.ones(1, bool))
    lowered = jax.jit(frame, donate_argnums=1).lower(*map(on_device, (split(mimi)[1], *given)))
    compiled = topology.compile(lowered)
    traffic = count(compiled.as_text())
    ring = 500 * 64 * 4
    assert "f64[" not in compiled.as_text()
    assert traffic.host_transfers() == []
    assert traffic.copies(at_least=ring) == []
    donated = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes >= donated
