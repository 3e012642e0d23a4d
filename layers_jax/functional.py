"""Modules define, functions run: a module is split once, and bound to its parameters in a trace.

Parameters outside a module are a plain nested dict with lists (one entry a layer): the only layout
that is ever saved, converted, sharded or differentiated.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

Params = dict[str, Any]
M = TypeVar("M", bound=nnx.Module)


def abstract(build: Callable[[], M]) -> M:
    """The module that `build` makes, holding shapes and dtypes in place of arrays."""
    return nnx.eval_shape(build)


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Params]:
    """The definition of `module` and its parameters as nested dicts and lists."""
    definition, state = nnx.split(module)
    return definition, _lists(nnx.to_pure_dict(state))


def bind(module: M, params: Params) -> M:
    """`module` with `params` in place of what it holds; cheap, meant to be called inside a trace.

    Raises:
      ValueError: `params` has not exactly the tree structure of the module.
    """
    definition, state = nnx.split(module)
    expected = jax.tree.structure(_lists(nnx.to_pure_dict(state)))
    got = jax.tree.structure(params)
    if got != expected:
        raise ValueError(
            f"parameters do not fit {type(module).__name__}: got tree {got}, expected {expected}; "
            "use the parameters that were loaded or initialised for this configuration"
        )
    nnx.replace_by_pure_dict(state, _indexed(params))
    return nnx.merge(definition, state)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if tree and all(isinstance(key, int) for key in tree):
        return [_lists(tree[index]) for index in range(len(tree))]
    return {key: _lists(value) for key, value in tree.items()}


def _indexed(tree: Any) -> Any:
    if isinstance(tree, list):
        return {index: _indexed(value) for index, value in enumerate(tree)}
    if isinstance(tree, dict):
        return {key: _indexed(value) for key, value in tree.items()}
    return tree
