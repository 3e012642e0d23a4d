"""A plan by arithmetic, for devices whose compiler is not at hand.

What lies on a device between programs is exact. What a program needs beside while it runs is summed
up from the tensors that must exist together: updates compiled for TPUs come within 6 % of the sum
(a test holds it to them), but the rollout compiled for them takes 10 GB more, in copies of weights
that this does not foresee. Bytes moved and sent are those that no program can save.
"""

from typing import Any

from bench.plan_programs import Plan, arguments, codec, flops, tree_bytes
from layers_jax import split

__all__ = ["account"]

F32, BF16 = 4, 2
LOGITS = 3
"""Tensors [T, V] of float32 at once: policy, base, gradient."""
SCORES = 3
"""Tensors [H, T, T] of float32 at once: scores, their softmax, its gradient."""


def account(plan: Plan, resident: dict[str, int]) -> dict[str, dict[str, Any]]:
    """Each program of an epoch, for one device: bytes held, moved and sent, and operations."""
    shapes = split(plan.training_lm)[1]
    head, layer = (tree_bytes(shapes[name]) for name in ("text_head", "temporal"))
    weights, layer = head + layer, layer // plan.lm.config.num_layers
    devices, generations = plan.mesh.size, plan.config.num_generations
    cut = plan.mesh.mapping == "shard_map" and devices > 1
    gathered = weights if cut else 0
    share = (devices - 1) / devices

    master, moments = resident["master"], resident["moments"]
    rounded = master * BF16 // F32  # weights in the format of the model, and their gradient
    # One layer whole, and its gradient before it is scattered; replicas have every layer already.
    whole = (layer + head) if cut else 0
    frames, config = plan.frames, plan.lm.config
    scores = config.num_heads * frames**2 * F32
    logits = frames * config.num_text_logits * F32
    update = 2 * rounded + 2 * whole + resident["activations"] + LOGITS * logits + SCORES * scores
    temporaries = {
        "update": update if cut else update + rounded,  # reduced in float32
        "logprobs": rounded + whole + logits + 2 * scores,
        "sync": resident["decoding weights"] + 2 * whole,
        # Keys, and every rollout's speech.
        "rollout": resident["keys and values"]
        + generations * plan.rollout_frames * codec().config.frame_samples * F32,
    }
    step = resident["depth"] + resident["decoding weights"] + resident["keys and values"]
    moved = {  # weights are read by each pass, written first where they are gathered
        "update": 2 * (master + moments) + resident["reference"] + 4 * (weights + gathered),
        "logprobs": generations * (weights + gathered),
        "sync": master + resident["decoding weights"],
        "rollout": plan.rollout_frames * step,
    }
    sums = share * (rounded * devices if cut else 2 * master)
    sent = {
        "update": 3 * share * gathered + sums,
        "logprobs": generations * share * gathered,
        "sync": share * gathered,
        "rollout": 0.0,
    }
    operations = flops(plan)
    return {
        name: {
            "how": "accounted",
            "bytes": sum(resident[part] for part in taken) + temporaries[name],
            "temporary_bytes": temporaries[name],
            "hbm_bytes": int(moved[name]),
            "sent_bytes": int(sent[name]),
            "flops": operations[name],
        }
        for name, taken in arguments(plan).items()
    }
