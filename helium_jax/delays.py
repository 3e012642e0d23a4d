"""Streams are shifted against each other before the model sees them. Source: moshi/models/lm.py."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


def apply_delays(
    codes: Int[Array, "B K T"], delays: Sequence[int], initial: Sequence[int]
) -> Int[Array, "B K T"]:
    """Stream k moved `delays[k]` frames later, the gap filled with `initial[k]`; its end is cut."""
    streams = [
        jnp.concatenate(
            [
                jnp.full_like(codes[:, k, :delay], token),
                codes[:, k, : codes.shape[2] - delay],
            ],
            axis=1,
        )
        for k, (delay, token) in enumerate(zip(delays, initial, strict=True))
    ]
    return jnp.stack(streams, axis=1)


def undo_delays(
    grid: Shaped[Array, "B K T *D"], delays: Sequence[int]
) -> tuple[Shaped[Array, "B K T *D"], Bool[Array, "K T"]]:
    """Stream k moved `delays[k]` frames earlier; the mask is False for the frames lost at the end.

    Lost frames hold zeros, not NaN as in the reference: a NaN behind a mask still kills gradients.
    """
    length = grid.shape[2]
    streams, known = [], []
    for k, delay in enumerate(delays):
        lost = jnp.zeros_like(grid[:, k, :delay])
        streams.append(jnp.concatenate([grid[:, k, delay:], lost], axis=1))
        known.append(jnp.arange(length) < length - delay)
    return jnp.stack(streams, axis=1), jnp.stack(known)
