"""Where the leaves of a parameter tree are cut, and the collectives that follow from it.

A cut leaf lies in equal blocks on all devices of the mesh, along one of its dimensions. Programs
gather it in the format of the model just before use and, since a gather's transpose is a sum that
scatters, get the gradient of their own block summed over all devices. Leaves that are not cut get a
plain sum. With no cut at all this is data parallelism by replicas: the same program serves both.

Source: ZeRO-3 (arXiv 1910.02054); that sums are scattered axis by axis over the torus is compiled
for it, see docs/tpu_pods.md.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

from grpo.mesh import Mesh

STACKED = ("temporal", "layers")
"""Path of the layers, whose leaves have a leading layer axis that is never cut."""


@dataclass(frozen=True)
class Layout:
    """The cut of every leaf of one tree.

    Attributes:
        cuts: a tree like the parameters: the dimension that is cut, -1 for none.
        mesh: whose axes the blocks are counted over.
    """

    cuts: Any
    mesh: Mesh

    @property
    def specs(self) -> Any:
        """`PartitionSpec` of every leaf."""
        return jax.tree.map(self._spec, self.cuts)

    def _spec(self, cut: int) -> PartitionSpec:
        return PartitionSpec() if cut < 0 else PartitionSpec(*[None] * cut, self.mesh.axes)

    def gather(self, tree: Any, cuts: Any, *, sliced: bool = False) -> Any:
        """Blocks to whole leaves, inside a mapped program.

        Args:
            tree: blocks of this device.
            cuts: their part of `self.cuts`.
            sliced: the leaves have lost their layer axis (inside a scan).
        """

        def leaf(cut: int, block: Array) -> Array:
            return block if cut < 0 else gather_block(block, cut - sliced, self.mesh.axes)

        return jax.tree.map(leaf, cuts, tree)

    def reduce(self, gradient: Any) -> Any:
        """Gradients summed over devices: those of cut leaves are already."""
        return jax.tree.map(
            lambda cut, leaf: leaf if cut >= 0 else jax.lax.psum(leaf, self.mesh.axes),
            self.cuts,
            gradient,
        )

    def norm(self, tree: Any) -> Float[Array, ""]:
        """Euclidean norm of a whole tree from the blocks of this device."""
        squares = jax.tree.map(lambda leaf: jnp.sum(jnp.square(leaf), dtype=jnp.float32), tree)
        return jnp.sqrt(self.total(squares))

    def total(self, sums: Any) -> Float[Array, ""]:
        """The sum over a tree of one number a leaf, each taken over this device's blocks."""
        pairs = list(zip(jax.tree.leaves(self.cuts), jax.tree.leaves(sums), strict=True))
        whole = sum((value for cut, value in pairs if cut < 0), start=jnp.zeros(()))
        blocks = [value for cut, value in pairs if cut >= 0]
        return whole + jax.lax.psum(sum(blocks), self.mesh.axes) if blocks else whole


def make_layout(params: Any, mesh: Mesh) -> Layout:
    """Cut every matrix along its first dimension that the devices divide, tables by columns.

    The first, since a TPU compiler scatters sums along the outermost dimension and turns others
    into a sum of everything and a slice. With `pmap`, nothing is cut. Vectors (norm scales) never
    are.

    Args:
        params: tree of arrays or shapes, temporal layers stacked.
        mesh: the devices.

    Raises:
        ValueError: a matrix has no dimension that the devices divide.
    """

    def cut(path: tuple[Any, ...], leaf: Any) -> int:
        names = tuple(getattr(key, "key", None) for key in path)
        sizes = list(enumerate(leaf.shape))[1 if names[:2] == STACKED else 0 :]
        if mesh.mapping == "pmap" or len(sizes) < 2:
            return -1
        if names[-1] == "table":
            sizes = sizes[-1:]
        for dim, size in sizes:
            if size % mesh.size == 0:
                return dim
        raise ValueError(
            f"{jax.tree_util.keystr(path)} has shape {tuple(leaf.shape)}, expected a dimension "
            f"that {mesh.size} devices divide; use another number of devices"
        )

    return Layout(jax.tree_util.tree_map_with_path(cut, params), mesh)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def gather_block(block: Array, dim: int, axes: tuple[str, ...]) -> Array:
    """A whole leaf from every device's block along `dim`, the last mesh axis varying fastest.

    One gather over all axes, of which a TPU uses every link at once. Its transpose scatters the sum
    axis by axis: over several axes at once the compiler sums everything everywhere and slices.
    """
    return jax.lax.all_gather(block, axes, axis=dim, tiled=True)


def _gather(block: Array, dim: int, axes: tuple[str, ...]) -> tuple[Array, None]:
    return gather_block(block, dim, axes), None


def _scatter_sum(dim: int, axes: tuple[str, ...], _: None, whole: Array) -> tuple[Array]:
    for axis in axes:
        whole = jax.lax.psum_scatter(whole, axis, scatter_dimension=dim, tiled=True)
    return (whole,)


gather_block.defvjp(_gather, _scatter_sum)


def exchange_columns(columns: Float[Array, "N B T d"], axes: tuple[str, ...]) -> Array:
    """[N, B, T, d], this device's columns of every device's rows -> [B, T, D], its own rows whole.

    Args:
        columns: N devices' rows, in mesh order.
        axes: of the mesh.
    """
    mine = jax.lax.all_to_all(columns, axes, split_axis=0, concat_axis=0, tiled=True)
    return jnp.moveaxis(mine, 0, -2).reshape(*columns.shape[1:-1], -1)
