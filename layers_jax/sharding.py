"""What a program that may run on several devices says about its values."""

import jax
from jax.sharding import AxisType, PartitionSpec

__all__ = ["replicated"]


def replicated(x: jax.Array) -> jax.Array:
    """`x`, whole on every device of the mesh (`jax.set_mesh`); without a mesh, `x`.

    Said of the residual stream and the logits: XLA would otherwise carry the division of a matrix
    over devices through what follows, a collective at each operation.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return x  # one device, or a per-device program that says its collectives itself
    return jax.lax.with_sharding_constraint(x, PartitionSpec())
