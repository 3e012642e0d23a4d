"""One frame of the codec compiled for a device that is not here, and what its text says."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from bench.compiled import shard_bytes
from bench.topology import describe
from bench.traffic import count
from layers_jax.functional import Params, abstract, split
from mimi_jax import Mimi, MimiConfig, MimiState, decode_step, encode_step

__all__ = ["CodecRow", "compile_codec"]


@dataclass(frozen=True)
class CodecRow:
    """A compiled frame: audio to codes and codes to audio in one program.

    `bytes_needed` is every weight in use once, the state read and the state written; `bytes_ratio`
    is what the program moves over that. `ring_copies` are copies of a ring's size or more.
    """

    bytes_moved: int
    bytes_needed: int
    weight_bytes: int
    state_bytes: int
    temporary_bytes: int
    kernels: int
    aliases_state: bool
    ring_copies: list[str]
    double_precision: bool
    host_transfers: int

    @property
    def bytes_ratio(self) -> float:
        """Bytes moved over bytes needed."""
        return self.bytes_moved / self.bytes_needed


def compile_codec(config: MimiConfig, topology_name: str, batch: int = 1) -> CodecRow:
    """Compiles the frame for one of the described devices.

    Raises:
      ValueError: unknown topology.
      ImportError: the compiler is not installed.
    """
    topology = describe(topology_name)
    whole = NamedSharding(topology.mesh(one=1), PartitionSpec())
    mimi = abstract(lambda: Mimi(config, rngs=nnx.Rngs(0)))

    def place(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole)

    state = jax.tree.map(place, jax.eval_shape(lambda: mimi.init_state(batch)))
    params = jax.tree.map(place, split(mimi)[1])

    def frame(
        params: Params, state: MimiState, pcm: jax.Array, codes: jax.Array, mask: jax.Array
    ) -> tuple[MimiState, jax.Array, jax.Array]:
        state, heard = encode_step(mimi, params, state, pcm, mask)
        state, said = decode_step(mimi, params, state, codes, mask)
        return state, heard, said

    pcm = jax.ShapeDtypeStruct((batch, config.frame_samples), jnp.float32, sharding=whole)
    codes = jax.ShapeDtypeStruct((batch, config.num_codebooks), jnp.int32, sharding=whole)
    mask = jax.ShapeDtypeStruct((batch,), jnp.bool, sharding=whole)
    program = jax.jit(frame, donate_argnums=1)
    compiled = topology.compile(program.lower(params, state, pcm, codes, mask))
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and memory is not None
    traffic = count(text)
    # Arguments the program does not use (codebooks beyond those of the session) are not its own.
    weights = sum(size for name, size in traffic.arguments.items() if name.startswith("params"))
    held = shard_bytes(state)
    ring = shard_bytes(state.encoder.caches[0].keys)
    return CodecRow(
        bytes_moved=traffic.total,
        bytes_needed=weights + 2 * held,
        weight_bytes=weights,
        state_bytes=held,
        temporary_bytes=memory.temp_size_in_bytes,
        kernels=sum(traffic.kernels().values()),
        aliases_state=memory.alias_size_in_bytes >= held,
        ring_copies=[copy.source for copy in traffic.copies(ring)],
        double_precision="f64" in traffic.dtypes,
        host_transfers=len(traffic.host_transfers()),
    )
