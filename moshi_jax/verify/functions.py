"""Checks of a recording of single functions: no weights, an input and an output each."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convert.mimi import code_vectors
from helium_jax import Sampler, apply_delays, undo_delays
from layers_jax import Embedding, LayerNorm, Precision, RMSNorm, bind, ring_positions
from layers_jax.linear import LowRankEmbedding
from layers_jax.mlp import GatedMlp
from layers_jax.rope import apply_rope
from moshi_jax.verify.check import Check, close, equal
from moshi_jax.verify.recording import Recording

__all__ = ["NOT_IMPLEMENTED", "check_functions", "is_of_functions"]

TOLERANCE, ROPE_TOLERANCE = 1e-5, 1e-4  # a rotation by 3000 radians is only known to 1e-4 in f32

# Of switches that no model here has: `MoshiConfig.from_dict` refuses them by name.
NOT_IMPLEMENTED = frozenset(
    {
        "cross_masked_sdpa_zero",  # cross attention
        "emb_demux",  # a second text stream in one token
        "layer_norm_f32",  # norm "layer_norm_f32", epsilon 1e-8
        "rms_norm",  # norm "rms_norm", epsilon 1e-5; the models have "rms_norm_f32", 1e-8
        "sample_topp",  # top-p sampling
        "sin_embedding",  # positional_embedding "sin"
    }
)


@dataclass(frozen=True)
class _Case:
    """The recording as the functions below take it."""

    tensors: Mapping[str, np.ndarray]
    config: Mapping[str, Any]
    options: Mapping[str, Any]

    def input(self, name: str) -> jax.Array:
        return jnp.asarray(self.tensors[f"inputs/{name}"])


def is_of_functions(recording: Recording) -> bool:
    """Whether the recording holds single functions rather than runs of a model."""
    modelless = not recording.weights and not recording.runs
    return modelless and not recording.name.endswith("_e2e") and bool(recording.outputs)


def check_functions(recording: Recording) -> Iterator[Check]:
    """Every recorded function: integers and bf16 exactly, f32 within a tolerance."""
    case = _Case(recording.tensors, recording.config, recording.provenance.get("options", {}))
    expected = recording.outputs
    left_out = sorted(set(expected) & NOT_IMPLEMENTED)
    for name in sorted(set(expected) - NOT_IMPLEMENTED):
        compute = _function(name)
        if compute is None:
            yield Check(False, f"{name} is a function this version does not know")
            continue
        got, wanted = np.asarray(compute(case)), expected[name]
        if name == "undelayed":  # the reference leaves NaN where ours are zeros
            mask = expected["undelay_mask"]
            wanted = np.where(mask[..., None], wanted, 0)
        if got.dtype != wanted.dtype and not np.issubdtype(wanted.dtype, np.integer):
            yield Check(False, f"{name} is {got.dtype}, expected {wanted.dtype}")
        elif wanted.dtype == np.float32:
            limit = ROPE_TOLERANCE if name.startswith("rope") else TOLERANCE
            yield close(name, got, wanted, limit)
        else:
            yield equal(name, got, wanted, np.ones(wanted.shape, bool))
    if left_out:
        compared = len(expected) - len(left_out)
        yield Check(
            True,
            f"{compared} of {len(expected)} functions compared; not those of switches that the "
            f"loader refuses: {', '.join(left_out)}",
        )


def _function(name: str) -> Callable[[_Case], Any] | None:
    if name.startswith("ring_positions_"):
        return lambda case: _ring_positions(case, name)
    return _FUNCTIONS.get(name)


def _bound(build: Callable[[], nnx.Module], **params: Any) -> Any:
    return bind(nnx.eval_shape(build), params)


def _rms_norm(case: _Case, precision: Precision) -> jax.Array:
    x, scale = case.input("x").astype(precision.compute), case.input("alpha").reshape(-1)
    norm = _bound(
        lambda: RMSNorm(x.shape[-1], precision=precision, rngs=nnx.Rngs(0)),
        scale=scale.astype(precision.params),
    )
    return norm(x)


def _layer_norm(case: _Case) -> jax.Array:
    x = case.input("x")
    norm = _bound(
        lambda: LayerNorm(x.shape[-1], precision=Precision.f32(), rngs=nnx.Rngs(0)),
        scale=case.input("ln_w"),
        bias=case.input("ln_b"),
    )
    return norm(x)


def _rope(case: _Case, name: str, layout: Any) -> jax.Array:
    x = case.input(name).swapaxes(1, 2)  # [B, N, T, H] as recorded
    positions = case.input("rope_offset")[:, None] + jnp.arange(x.shape[1])
    turned = apply_rope(x, positions, max_period=case.config["max_period"], layout=layout)
    return turned.swapaxes(1, 2)


def _gating(case: _Case, name: str) -> jax.Array:
    """The fused matrix has the gate first."""
    fused, down = case.input(f"{name}_linear_in"), case.input(f"{name}_linear_out")
    hidden = fused.shape[0] // 2
    mlp = _bound(
        lambda: GatedMlp(fused.shape[1], hidden, precision=Precision.f32(), rngs=nnx.Rngs(0)),
        gate_up={"kernel": fused.reshape(2, hidden, -1).transpose(2, 0, 1)},
        down={"kernel": down.T},
    )
    return mlp(case.input("xg"))


def _ring_positions(case: _Case, name: str) -> jax.Array:
    """What every slot holds after each write; the fork's are in `ring_positions_fork_T*`."""
    reference, tokens = name.removeprefix("ring_positions_").rsplit("_T", 1)
    length, rule = int(tokens), "personaplex" if reference == "fork" else "kyutai"
    writes = jnp.arange(case.config["ring_writes"], dtype=jnp.int32)
    return ring_positions(writes * length, length, case.config["ring_capacity"], rule)


def _embedding(case: _Case) -> jax.Array:
    table = case.input("emb_table")
    embedding = _bound(
        lambda: Embedding(*table.shape, precision=Precision.f32(), rngs=nnx.Rngs(0)), table=table
    )
    return embedding(case.input("emb_ids"))


def _low_rank_embedding(case: _Case) -> jax.Array:
    table, projection = case.input("emb_low_rank_table"), case.input("emb_low_rank_proj")
    entries, rank = table.shape
    embedding = _bound(
        lambda: LowRankEmbedding(
            entries, len(projection), rank, precision=Precision.f32(), rngs=nnx.Rngs(0)
        ),
        table=table,
        projection={"kernel": projection.T},
    )
    return embedding(case.input("emb_low_rank_ids"))


def _sample(case: _Case, name: str) -> jax.Array:
    top_k = {"plain": None, "topk": "top_k", "topk_clip": "top_k_clip"}[name]
    sampler = Sampler(
        temperature=case.options["sample_temp"],
        top_k=None if top_k is None else int(case.options[top_k]),
    )
    return sampler(case.input("logits"), case.input(f"noise_{name}"))[0]


def _delayed(case: _Case) -> jax.Array:
    delays = case.options["delays"]
    return apply_delays(case.input("codes"), delays, [case.options["delay_padding"]] * len(delays))


def _undelayed(case: _Case) -> tuple[jax.Array, jax.Array]:
    return undo_delays(case.input("undelay_in"), case.options["delays"])


_FUNCTIONS: dict[str, Callable[[_Case], Any]] = {
    "codebook": lambda case: code_vectors(
        case.tensors["inputs/embedding_sum"], case.tensors["inputs/cluster_usage"]
    ),
    "delayed": _delayed,
    "elu": lambda case: jax.nn.elu(case.input("g")),
    "emb": _embedding,
    "emb_low_rank": _low_rank_embedding,
    "gating": lambda case: _gating(case, "gating"),
    "gating_4x": lambda case: _gating(case, "gating_4x"),
    "gelu": lambda case: jax.nn.gelu(case.input("g"), approximate=False),
    "greedy": lambda case: Sampler(temperature=0)(case.input("logits_ties"), None)[0],
    "layer_norm": _layer_norm,
    "rms_norm_f32": lambda case: _rms_norm(case, Precision.f32()),
    "rms_norm_f32_bf16": lambda case: _rms_norm(case, Precision.bf16()),
    "rope_q": lambda case: _rope(case, "q", "interleaved"),
    "rope_k": lambda case: _rope(case, "k", "interleaved"),
    "rope_concat_q": lambda case: _rope(case, "q", "half"),
    "rope_concat_k": lambda case: _rope(case, "k", "half"),
    "sample_plain": lambda case: _sample(case, "plain"),
    "sample_topk": lambda case: _sample(case, "topk"),
    "sample_topk_clip": lambda case: _sample(case, "topk_clip"),
    "silu": lambda case: jax.nn.silu(case.input("g")),
    "undelay_mask": lambda case: jnp.broadcast_to(
        _undelayed(case)[1], case.tensors["expected/undelay_mask"].shape
    ),
    "undelayed": lambda case: _undelayed(case)[0],
}
