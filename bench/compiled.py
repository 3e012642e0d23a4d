"""One step of a language model compiled for devices that are not here, and what its text says."""

import math
import re
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.presets import preset
from bench.topology import NAMES, Topology, describe
from bench.traffic import Traffic, count
from helium_jax import (
    MODEL_AXIS,
    Moshi,
    MoshiConfig,
    MoshiState,
    Sampling,
    StepOutput,
    init_state,
    param_shardings,
    state_shardings,
    step,
)
from layers_jax import Precision, split
from layers_jax.functional import Params, abstract

__all__ = ["DTYPES", "Case", "Row", "compile_case", "shard_bytes"]

DTYPES = {"bf16": Precision.bf16, "int8": Precision.int8_weights}
MIB, GIB = 2**20, 2**30
# No copy that matters is smaller, and no buffer of the model is: weights are not, rings are not.
COPY_BYTES = MIB


@dataclass(frozen=True)
class Case:
    """What to compile.

    Attributes:
      preset: a model by name.
      topology: devices by name; all of them share the model (tensor parallel).
      dtype: bf16, or int8 matrices.
      batch: sessions B.
      layers: temporal layers, those of the preset by default.
      context: frames of the rings, those of the preset by default.
      split_depth: divide the depth transformer over the devices too.
    """

    preset: str
    topology: str
    dtype: str
    batch: int
    layers: int | None = None
    context: int | None = None
    split_depth: bool = False

    @property
    def config(self) -> MoshiConfig:
        """The model's shapes."""
        config = preset(self.preset).lm
        return replace(
            config,
            num_layers=self.layers or config.num_layers,
            context=self.context or config.context,
        )


@dataclass
class Row:
    """A compiled case, figures a device; bytes are those of one frame of all sessions.

    `bytes_ratio` is what the program moves over what it must: every weight it uses once, every
    ring once, the rows of the tables that are looked up. `bound_ms` and `flops_ms` are bytes over
    datasheet bandwidth and operations over datasheet peak: limits, not latencies.
    """

    preset: str
    topology: str
    dtype: str
    batch: int
    layers: int
    context: int
    devices: int
    fits: bool
    advice: str = ""
    argument_bytes: int = 0
    memory_bytes: int = 0
    bytes_ratio: float = 0.0
    bytes_moved: int = 0
    bytes_needed: int = 0
    bytes_by_class: dict[str, int] = field(default_factory=dict)
    bound_ms: float = 0.0
    flops: float = 0.0
    flops_ms: float = 0.0
    peak_bytes: int = 0
    temporary_bytes: int = 0
    aliases_state: bool = False
    sessions: int = 0
    kernels: int = 0
    copies: list[str] = field(default_factory=list)
    largest_write: int = 0
    collectives: dict[str, int] = field(default_factory=dict)
    collective_bytes: int = 0
    double_precision: bool = False
    host_transfers: int = 0
    compile_s: float = 0.0
    total_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def compile_case(case: Case) -> Row:
    """Compiles one case; a case that does not fit is a row that says so.

    Raises:
      ValueError: unknown topology, or heads that its devices cannot share.
      ImportError: the compiler is not installed.
    """
    started = time.perf_counter()
    topology = describe(case.topology)
    mesh = topology.mesh(**{MODEL_AXIS: len(topology.devices)})
    lm, params, state = _placed(case, mesh)
    row = Row(
        case.preset,
        case.topology,
        case.dtype,
        case.batch,
        case.config.num_layers,
        case.config.context,
        devices=len(topology.devices),
        fits=False,
        argument_bytes=shard_bytes((params, state)),
        memory_bytes=topology.device.memory,
    )
    if row.argument_bytes > row.memory_bytes:
        row.advice = _advice(case, row.argument_bytes - row.memory_bytes, at_least=True)
    else:
        lowered = _lower(lm, params, state, mesh)
        compile_started = time.perf_counter()
        try:
            compiled = topology.compile(lowered)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            row.advice = _advice(case, _excess(str(error)))
        else:
            row.compile_s = time.perf_counter() - compile_started
            _measure(row, case, topology, compiled, params, state)
    row.total_s = time.perf_counter() - started
    return row


def shard_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree on one device."""
    return sum(_shard_size(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shard_size(leaf: jax.ShapeDtypeStruct) -> int:
    assert leaf.sharding is not None
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


@lru_cache(maxsize=4)
def _model(config: MoshiConfig, dtype: str) -> tuple[Moshi, Params]:
    lm = abstract(lambda: Moshi(config, precision=DTYPES[dtype](), rngs=nnx.Rngs(0)))
    return lm, split(lm)[1]


def _placed(case: Case, mesh: Mesh) -> tuple[Moshi, Params, MoshiState]:
    """The model, its parameters and the state as shapes with their places."""
    lm, params = _model(case.config, case.dtype)
    state = jax.eval_shape(lambda: init_state(lm, case.batch))

    def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shardings = param_shardings(case.config, params, mesh, split_depth=case.split_depth)
    return (
        lm,
        jax.tree.map(place, params, shardings),
        jax.tree.map(place, state, state_shardings(state, mesh)),
    )


def _lower(lm: Moshi, params: Params, state: MoshiState, mesh: Mesh) -> jax.stages.Lowered:
    def run(
        params: Params, state: MoshiState, codes: jax.Array, exec_mask: jax.Array
    ) -> tuple[MoshiState, StepOutput]:
        return step(lm, params, state, codes, sampling=Sampling(), exec_mask=exec_mask)

    whole = NamedSharding(mesh, PartitionSpec())
    batch, user = state.offset.shape[0], lm.config.num_user_codebooks
    codes = jax.ShapeDtypeStruct((batch, user), jnp.int32, sharding=whole)
    mask = jax.ShapeDtypeStruct((batch,), jnp.bool, sharding=whole)
    places = jax.tree.map(lambda leaf: leaf.sharding, state)
    program = jax.jit(run, donate_argnums=1, out_shardings=(places, whole))
    with jax.set_mesh(mesh):
        return program.lower(params, state, codes, mask)


def _measure(
    row: Row,
    case: Case,
    topology: Topology,
    compiled: jax.stages.Compiled,
    params: Params,
    state: MoshiState,
) -> None:
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert text is not None and memory is not None
    traffic = count(text)
    row.fits = True
    row.bytes_moved = traffic.total
    row.bytes_needed = _needed(traffic, case.config, case.batch)
    row.bytes_ratio = round(row.bytes_moved / row.bytes_needed, 4)
    row.bytes_by_class = _by_class(traffic)
    row.bound_ms = row.bytes_moved / topology.device.bandwidth * 1e3
    row.flops = _flops(traffic, params, case)
    row.flops_ms = row.flops / topology.device.bf16 * 1e3
    row.temporary_bytes = memory.temp_size_in_bytes
    code = memory.generated_code_size_in_bytes
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    row.peak_bytes = memory.argument_size_in_bytes + row.temporary_bytes + code + new
    session = shard_bytes(state) / case.batch
    # Donated buffers may be padded to whole tiles, never shrunk.
    row.aliases_state = memory.alias_size_in_bytes >= shard_bytes(state)
    free = row.memory_bytes - (row.argument_bytes - case.batch * session) - code
    row.sessions = int(free // (session + row.temporary_bytes / case.batch))
    row.kernels = sum(traffic.kernels().values())
    row.copies = [f"{o.source}: {o.moved // 2}" for o in traffic.copies(COPY_BYTES)]
    row.largest_write = traffic.largest_write().writes.get(None, 0)
    row.collectives = dict(traffic.collectives())
    row.collective_bytes = traffic.payload()
    row.double_precision = "f64" in traffic.dtypes
    row.host_transfers = len(traffic.host_transfers())


def _needed(traffic: Traffic, config: MoshiConfig, batch: int) -> int:
    """Bytes that no program can save: arguments once, of tables the rows looked up."""
    total = 0
    for name, size in traffic.arguments.items():
        if "table" in name:
            entries = config.text_card + 1 if "text_embedding" in name else config.card + 1
            # One row a session and codebook, also of the table that holds all input codebooks.
            size = size * min(batch, entries) // entries
        total += size
    return total


def _by_class(traffic: Traffic) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, size in traffic.by_argument().items():
        found[_class(name)] += size
    return dict(found.most_common())


def _class(name: str | None) -> str:
    if name is None:
        return "intermediate"
    for part in ("caches", "table", "temporal", "depth", "text_head"):
        if part in name:
            return {"caches": "rings", "table": "tables"}.get(part, part)
    return "other"


def _flops(traffic: Traffic, params: Params, case: Case) -> float:
    """Multiplications and additions a device: matrices in use, and attention over full rings."""
    config, used = case.config, {name.replace("\\", "") for name in traffic.arguments}
    matrices = sum(
        _shard_size(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "params" + jax.tree_util.keystr(path) in used and "kernel" in str(path[-1])
    )
    rings = sum(size for name, size in traffic.arguments.items() if "caches" in name)
    repeat = config.kv_repeat
    return 2.0 * case.batch * matrices + 2.0 * repeat * rings / 2  # two bytes an element


def _excess(message: str) -> int:
    """Bytes too much, as the compiler says them: `Exceeded hbm capacity by 42.1M`."""
    found = re.search(r"capacity by ([\d.]+)([KMG])", message)
    if found is None:
        return 0
    return int(float(found[1]) * {"K": 2**10, "M": MIB, "G": GIB}[found[2]])


def _advice(case: Case, excess: int, *, at_least: bool = False) -> str:
    """By how much a case does not fit, and what would."""
    ways = []
    if case.dtype == "bf16" and _would_fit(replace(case, dtype="int8")):
        ways.append("--dtype int8")
    kind = case.topology.partition(":")[0]
    larger = [replace(case, topology=name) for name in NAMES if name.startswith(f"{kind}:")]
    ways += [f"--topology {other.topology}" for other in larger if _would_fit(other)][:2]
    if case.batch > 1 and not ways:
        ways.append("a smaller --batch")
    over = f"{'at least ' if at_least else ''}{excess / GIB:.2f} GiB"
    return f"does not fit {case.topology} by {over}; use {' or '.join(ways) or 'a larger device'}"


def _would_fit(case: Case) -> bool:
    """Whether arguments leave an eighth of the memory for everything else."""
    try:
        topology = describe(case.topology)
        mesh = topology.mesh(**{MODEL_AXIS: len(topology.devices)})
        _, params, state = _placed(case, mesh)
    except ValueError:  # heads that these devices cannot share
        return False
    return shard_bytes((params, state)) < topology.device.memory * 7 / 8
