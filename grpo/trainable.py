"""Which parameters the text objective can reach, and the split of the tree along that line.

The loss is on text logits, so gradient flows text head -> output norm -> temporal layers -> input
embeddings. The depth transformer and its heads would only get zeros: they stay out of the gradient
and of the optimizer state.
"""

from typing import Any

import jax

Params = dict[str, Any]

TRAINABLE = ("audio_embedding", "out_norm", "temporal", "text_embedding", "text_head")
"""Top-level entries of the Moshi parameter tree that get gradient."""


def partition(params: Params) -> tuple[Params, Params]:
    """Split a Moshi parameter tree into (trainable, frozen).

    Raises:
        ValueError: a trainable entry is missing.
    """
    missing = [name for name in TRAINABLE if name not in params]
    if missing:
        raise ValueError(f"Moshi parameters lack {', '.join(missing)}; got {sorted(params)}")
    trainable = {name: value for name, value in params.items() if name in TRAINABLE}
    frozen = {name: value for name, value in params.items() if name not in TRAINABLE}
    return trainable, frozen


def merge(trainable: Params, frozen: Params) -> Params:
    """Inverse of `partition`."""
    return {**trainable, **frozen}


def decays(params: Params) -> Params:
    """A tree of bools: which leaves get weight decay. Norm scales do not."""

    def leaf(path: tuple[Any, ...], _: Any) -> bool:
        return not any("norm" in str(getattr(key, "key", "")) for key in path)

    return jax.tree_util.tree_map_with_path(leaf, params)
