"""The programs of a GRPO run for devices that are only described, and what their data weigh."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bench.topology import Topology
from grpo.adapters import with_adapters
from grpo.config import GRPOConfig, LoraTraining, OptimizerConfig
from grpo.mesh import Mesh, mesh_of
from grpo.policy import Constants, Minibatch, training_form
from grpo.programs import make_parts, make_programs, wanted_of
from grpo.trainable import TRAINABLE, partition
from grpo.update import init_train_state, make_optimizer, state_specs
from helium_jax import Moshi, MoshiConfig
from layers_jax import Precision, split
from layers_jax.functional import Params, abstract
from mimi_jax import Mimi, mimi_24khz

Shape = jax.ShapeDtypeStruct
MATRIX_PASSES = 5
"""Forward passes' worth of matrix products in an update: policy forward, again when it is
rematerialised, twice that in the backward pass, and the base model's forward."""


@dataclass(frozen=True)
class Plan:
    """A run on a described pod.

    Attributes:
        config: of the run.
        mesh: of the pod's devices.
        lm: the model, adapters included.
        frames: of an update.
        rollout_frames: of a rollout.
    """

    config: GRPOConfig
    mesh: Mesh
    lm: Moshi
    frames: int
    rollout_frames: int

    @cached_property
    def training_lm(self) -> Moshi:
        """Layers stacked."""
        return training_form(self.lm)


def make_plan(
    topology: Topology,
    model: MoshiConfig,
    *,
    mapping: str,
    lora: int | None,
    moments: str,
    frames: int,
    rollout_frames: int,
    num_generations: int,
) -> Plan:
    """The run that `moshi-jax train` would start with these settings.

    The mesh has the axes of the torus that the topology's name says.
    """
    mesh = _mesh(topology, mapping)
    nowhere = Path("described")
    config = GRPOConfig(
        checkpoint=nowhere,
        segments=nowhere,
        run_dir=nowhere,
        mapping=mapping,  # type: ignore[bad-argument-type]
        mesh_shape=mesh.shape if mapping == "shard_map" else None,
        num_generations=num_generations,
        lora=LoraTraining(rank=lora),
        optimizer=OptimizerConfig(moments=moments),  # type: ignore[bad-argument-type]
    )
    base = abstract(lambda: Moshi(model, precision=Precision.bf16(), rngs=nnx.Rngs(0)))
    return Plan(config, mesh, with_adapters(base, config.lora), frames, rollout_frames)


def _mesh(topology: Topology, mapping: str) -> Mesh:
    count = len(topology.devices)
    if topology.platform == "figures":
        # Only counted: any device stands for each of them.
        return Mesh((jax.devices()[0],) * count, (count,), mapping)  # type: ignore[bad-argument-type]
    torus = tuple(int(n) for n in topology.name.partition(":")[2].split("x"))
    shape = tuple(n for n in torus if n > 1) or (1,)
    if math.prod(shape) != count:  # a chip of two devices
        shape = (*shape[:-1], shape[-1] * count // math.prod(shape))
    divided = shape if mapping == "shard_map" else None
    return mesh_of(list(topology.devices), mapping=mapping, shape=divided)  # type: ignore[bad-argument-type]


def lowerings(plan: Plan) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Each program of an epoch by name, traced for the pod when called."""
    mimi = codec()
    programs: Any = make_programs(plan.config, plan.mesh, plan.lm, mimi)
    trainable, frozen = partition(split(plan.training_lm)[1], wanted_of(plan.config))
    optimizer, _ = make_optimizer(plan.config.optimizer, plan.config.total_updates)
    state = jax.eval_shape(lambda tree: init_train_state(tree, optimizer), trainable)
    reference = trainable if plan.config.lora.rank is None else {}
    devices, rows, length = plan.mesh.size, 1, plan.frames
    streams = plan.lm.config.num_streams
    batch = Minibatch(
        streams=Shape((devices, rows, streams, length), jnp.int32),
        old_logprob=Shape((devices, rows, length), jnp.float32),
        advantage=Shape((devices, rows), jnp.float32),
        mask=Shape((devices, rows, length), jnp.bool_),
    )
    samples = plan.rollout_frames * mimi.config.frame_samples
    spoken = (
        Shape((devices, samples), jnp.float32),
        Shape((devices,), jnp.int32),
        Shape((devices, plan.config.num_generations), jnp.int32),
    )
    said = Shape((devices, plan.config.num_generations, streams, length), jnp.int32)
    constants = Constants(frozen, reference)
    return {
        "update": lambda: programs.update.lower(state, constants, batch),
        "logprobs": lambda: programs.logprobs.lower(state, frozen, said),
        "sync": lambda: programs.sync.lower(state, frozen),
        "rollout": lambda: programs.rollout.lower(split(plan.lm)[1], split(mimi)[1], *spoken),
    }


def resident_bytes(plan: Plan) -> dict[str, int]:
    """Bytes of each part on one device, apart from what programs need while they run."""
    mesh = plan.mesh
    parts = make_parts(plan.config, plan.training_lm, mesh)
    trainable, frozen = partition(split(plan.training_lm)[1], wanted_of(plan.config))
    optimizer, _ = make_optimizer(plan.config.optimizer, plan.config.total_updates)
    state = jax.eval_shape(lambda tree: init_train_state(tree, optimizer), trainable)
    specs = state_specs(parts.trained, parts.shapes, optimizer)

    def weigh(tree: Any, of: Any) -> int:
        leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(of), strict=True)
        cut = [(leaf, mesh.size if any(spec) else 1) for leaf, spec in leaves]
        return sum(leaf.size * leaf.dtype.itemsize // n for leaf, n in cut)

    read = {name: part for name, part in frozen.items() if name in TRAINABLE}
    read_specs = {name: parts.constants.frozen[name] for name in read}
    full = plan.config.lora.rank is None
    config = plan.lm.config
    slots = min(config.context, plan.rollout_frames + config.max_delay)
    width = config.temporal.num_kv_heads * config.temporal.head_dim
    keys = 2 * 2 * config.num_layers * width * slots * plan.config.num_generations
    decoding, rest = partition(split(plan.lm)[1])
    return {
        "master": weigh(state.trainable, specs.trainable),
        "moments": weigh(state.opt_state, specs.opt_state),
        "reference": weigh(trainable, parts.trained.specs) if full else weigh(read, read_specs),
        "depth": tree_bytes(rest),
        "codec": tree_bytes(split(codec())[1]),
        "decoding weights": tree_bytes(decoding),
        "keys and values": keys,
        "activations": 2 * config.num_layers * plan.frames * config.dim,
    }


def arguments(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Which of the resident parts each program takes."""
    full = plan.config.lora.rank is None
    # Adapters are trained beside their base, which every forward reads.
    forward = ("master",) if full else ("master", "reference")
    return {
        "update": ("master", "moments", "reference"),
        "logprobs": forward,
        "sync": forward,
        "rollout": ("depth", "codec", "decoding weights"),
    }


def beside(plan: Plan, resident: dict[str, int]) -> dict[str, int]:
    """Bytes that lie on a device while a program runs, and are none of its arguments.

    The decoding weights are dropped after the rollouts; everything else stays.
    """
    stays = ("master", "moments", "reference", "depth", "codec")
    return {
        program: sum(resident[part] for part in stays if part not in taken)
        for program, taken in arguments(plan).items()
    }


def codec() -> Mimi:
    """The codec of the rollouts, as shapes."""
    return abstract(lambda: Mimi(mimi_24khz(), rngs=nnx.Rngs(0)))


def tree_bytes(tree: Params) -> int:
    """Bytes of a whole tree of shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def flops(plan: Plan) -> dict[str, float]:
    """Floating-point operations of each program on one device; products of matrices alone."""
    config = plan.lm.config
    shapes = split(plan.training_lm)[1]
    weights = sum(map(_matrices, (shapes["temporal"], shapes["text_head"])))
    # Scores and values of every frame with every frame: what is masked is computed, too.
    attention = 2 * config.num_layers * config.dim * plan.frames
    forward = 2.0 * plan.frames * (weights + attention)
    generations = plan.config.num_generations
    ring = 2 * config.num_layers * config.dim * min(config.context, plan.rollout_frames)
    step = 2.0 * (weights + _matrices(shapes["depth"]) + ring)
    return {
        "update": MATRIX_PASSES * forward,
        "logprobs": generations * forward,
        "sync": 0.0,
        "rollout": plan.rollout_frames * generations * step,
    }


def _matrices(tree: Any) -> int:
    """Values in matrices that something is multiplied with."""
    leaves = jax.tree.leaves_with_path(tree)
    return sum(leaf.size for path, leaf in leaves if leaf.ndim > 1 and "table" not in str(path))
