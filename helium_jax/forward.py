"""The teacher-forced forward: all frames of a recorded session at once.

Source: `LMModel.forward` in moshi/models/lm.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

import layers_jax
from helium_jax.config import MoshiConfig
from helium_jax.delays import apply_delays, undo_delays
from helium_jax.model import Moshi
from layers_jax import bind
from layers_jax.functional import Params


class Logits(NamedTuple):
    """Logits of each training frame; masks are False where a target is unknown or cut off."""

    text: Float[Array, "B T V"]
    text_mask: Bool[Array, "B T"]
    audio: Float[Array, "B Q T W"]
    audio_mask: Bool[Array, "B Q T"]


def forward(
    lm: Moshi,
    params: Params,
    codes: Int[Array, "B K T"],
    conditions: Int[Array, "B C"] | None = None,
) -> Logits:
    """Logits for the text and the generated codebooks of every frame.

    Args:
      lm: the model's definition (static), listed or stacked.
      params: its parameters, in the same layout.
      codes: text, agent and user streams by training frame; -1 where unknown.
      conditions: `condition_rows` of each session, for a model that has conditioners.
    """
    model = bind(lm, params)
    hidden, targets = _hidden(model, codes, conditions)
    return logits_of_hidden(model, hidden, targets, codes)


def logits_of_hidden(
    model: Moshi,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B K T"],
    codes: Int[Array, "B K T"],
) -> Logits:
    """The half of `forward` behind the temporal transformer: text head, depth, delays undone.

    Args:
      model: bound to its parameters; those of the temporal transformer are not read.
      hidden: its normed output on the delayed grid.
      targets: the grid that it predicts, of `delayed_grid`.
      codes: the same by training frame.
    """
    config = model.config
    batch, length, _ = hidden.shape

    def rows(x: jax.Array) -> jax.Array:
        return x.reshape(batch * length, *x.shape[2:])

    audio = []

    def choose(k: int, logits: jax.Array) -> jax.Array:
        audio.append(logits.reshape(batch, length, -1))
        return rows(targets[:, 1 + k])

    if model.depth is None:
        undelayed = jnp.zeros((batch, 0, length, config.card), model.precision.logits)
        known = jnp.zeros((0, length), bool)
    else:
        model.depth.unroll(rows(hidden), rows(targets[:, 0]), choose)
        delays = config.delays[1 : 1 + config.dep_q]
        undelayed, known = undo_delays(jnp.stack(audio, axis=1), delays)
    return Logits(
        text=model.text_logits(hidden),
        text_mask=codes[:, 0] != -1,
        audio=undelayed,
        audio_mask=known & (codes[:, 1 : 1 + config.dep_q] != -1),
    )


def forward_text(
    lm: Moshi,
    params: Params,
    codes: Int[Array, "B K T"],
    conditions: Int[Array, "B C"] | None = None,
) -> Float[Array, "B T V"]:
    """Text logits of every frame: the temporal side alone, which is what the policy trains."""
    model = bind(lm, params)
    hidden, _ = _hidden(model, codes, conditions)
    return model.text_logits(hidden)


def _hidden(
    model: Moshi, codes: jax.Array, conditions: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Temporal output [B, T, D], and the delayed grid [B, K, T] that it predicts."""
    fed, targets = delayed_grid(model.config, codes)
    condition = None if conditions is None else model.condition(conditions)
    return model.hidden(fed, condition), targets


def delayed_grid(
    config: MoshiConfig, codes: Int[Array, "B K T"]
) -> tuple[Int[Array, "B K T"], Int[Array, "B K T"]]:
    """What the temporal transformer is fed at each position, and what it is to predict there."""
    initial = jnp.array(config.initial_tokens)[:, None]
    targets = apply_delays(codes, config.delays, config.initial_tokens)
    first = jnp.broadcast_to(initial, (codes.shape[0], config.num_streams, 1)).astype(codes.dtype)
    return jnp.concatenate([first, targets[:, :, :-1]], axis=2), targets


def stack_layers(params: Params) -> Params:
    """Parameters with the temporal layers on one leading axis: for `Moshi(stacked=True)`."""
    layers = layers_jax.stack_layers(params["temporal"]["layers"])
    return {**params, "temporal": {"layers": layers}}


def unstack_layers(params: Params) -> Params:
    """Inverse of `stack_layers`."""
    layers = layers_jax.unstack_layers(params["temporal"]["layers"])
    return {**params, "temporal": {"layers": layers}}
