"""Which parameters the text objective can reach, and the split of the tree along that line.

The loss is on text logits, so gradient flows text head -> output norm -> temporal layers -> input
embeddings. The depth transformer and its heads would only get zeros: they stay out of the gradient
and of the optimizer state.
"""

from collections.abc import Callable
from typing import Any

import jax

Params = dict[str, Any]

TRAINABLE = ("audio_embedding", "out_norm", "temporal", "text_embedding", "text_head")
"""Top-level entries of the Moshi parameter tree that get gradient."""


def partition(
    params: Params, wanted: Callable[[tuple[str, ...]], bool] | None = None
) -> tuple[Params, Params]:
    """Split a Moshi parameter tree into (trainable, frozen).

    Args:
        params: nested dicts; temporal layers stacked if they are to be split leaf by leaf.
        wanted: which of the leaves that get gradient are trained, by path; all if None.

    Raises:
        ValueError: an entry that gets gradient is missing, or nothing is wanted.
    """
    missing = [name for name in TRAINABLE if name not in params]
    if missing:
        raise ValueError(f"Moshi parameters lack {', '.join(missing)}; got {sorted(params)}")
    reached = {name: value for name, value in params.items() if name in TRAINABLE}
    frozen = {name: value for name, value in params.items() if name not in TRAINABLE}
    if wanted is None:
        return reached, frozen
    trainable = _pick(reached, (), wanted)
    if not trainable:
        raise ValueError("no parameter is to be trained, expected at least one; check the targets")
    return trainable, {**_pick(reached, (), lambda path: not wanted(path)), **frozen}


def _pick(tree: Any, path: tuple[str, ...], wanted: Callable[[tuple[str, ...]], bool]) -> Params:
    picked = {}
    for name, value in tree.items():
        here = (*path, name)
        if isinstance(value, dict):
            if inside := _pick(value, here, wanted):
                picked[name] = inside
        elif wanted(here):
            picked[name] = value
    return picked


def merge(trainable: Any, frozen: Any) -> Any:
    """Inverse of `partition`."""
    if not (isinstance(trainable, dict) and isinstance(frozen, dict)):
        return trainable
    both = {**frozen, **trainable}
    shared = trainable.keys() & frozen.keys()
    return {**both, **{name: merge(trainable[name], frozen[name]) for name in shared}}


def decays(params: Params) -> Params:
    """A tree of bools: which leaves get weight decay. Norm scales do not."""

    def leaf(path: tuple[Any, ...], _: Any) -> bool:
        return not any("norm" in str(getattr(key, "key", "")) for key in path)

    return jax.tree_util.tree_map_with_path(leaf, params)
