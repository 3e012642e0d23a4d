"""Which parameters the text objective can reach, and the split of the tree along that line.

The loss is on text logits, so gradient flows text head -> output norm -> temporal layers -> input
embeddings. The depth transformer and its heads would only get zeros: they stay out of the gradient
and of the optimizer state.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

Params = dict[str, Any]

TRAINABLE = ("audio_embedding", "out_norm", "temporal", "text_embedding", "text_head")
"""Top-level entries of the Moshi parameter tree that get gradient."""


def partition(
    params: Params,
    wanted: Callable[[tuple[str, ...]], bool] | None = None,
    entries: Sequence[str] = TRAINABLE,
) -> tuple[Params, Params]:
    """Split a Moshi parameter tree into (trainable, frozen).

    Args:
        params: nested dicts and lists; temporal layers stacked if they are to be split by leaf.
        wanted: which of the leaves that get gradient are trained, by path; all if None.
        entries: top-level entries that get gradient.

    Raises:
        ValueError: an entry that gets gradient is missing, or nothing is wanted.
    """
    missing = [name for name in entries if name not in params]
    if missing:
        raise ValueError(f"Moshi parameters lack {', '.join(missing)}; got {sorted(params)}")
    reached = {name: value for name, value in params.items() if name in entries}
    frozen = {name: value for name, value in params.items() if name not in entries}
    if wanted is None:
        return reached, frozen
    trainable = _pick(reached, (), wanted)
    if not trainable:
        raise ValueError("no parameter is to be trained, expected at least one; check the targets")
    return trainable, {**_pick(reached, (), lambda path: not wanted(path)), **frozen}


def _pick(tree: Any, path: tuple[str, ...], wanted: Callable[[tuple[str, ...]], bool]) -> Params:
    picked: Params = {}
    for name, value in tree.items():
        here = (*path, name)
        if isinstance(value, dict):
            if inside := _pick(value, here, wanted):
                picked[name] = inside
        elif isinstance(value, list):
            # A place for each item, so that an index means the same in both parts.
            items = [_pick(item, (*here, str(i)), wanted) for i, item in enumerate(value)]
            if any(items):
                picked[name] = items
        elif wanted(here):
            picked[name] = value
    return picked


def merge(trainable: Any, frozen: Any) -> Any:
    """Inverse of `partition`."""
    if isinstance(trainable, list) and isinstance(frozen, list):
        return [merge(*pair) for pair in zip(trainable, frozen, strict=True)]
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
