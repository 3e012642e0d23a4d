"""The loss of Moshi's fine-tuning: text plus audio, each a weighted mean over its known tokens.

Source: moshi-finetune, finetune/loss.py.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from helium_jax import Logits
from helium_jax.text import EPAD, PAD


class LanguageModelLoss(NamedTuple):
    """Cross-entropies in nats."""

    text: Float[Array, ""]  # PAD and EPAD at half weight
    audio: Float[Array, ""]  # the first codebook at its weight
    words: Float[Array, ""]  # of the text tokens that are neither, unweighted: to look at
    first: Float[Array, ""]  # of the first codebook: to look at

    def total(self) -> Float[Array, ""]:
        """What is minimised."""
        return self.text + self.audio


def language_model_loss(
    logits: Logits,
    streams: Int[Array, "B K T"],
    *,
    padding_weight: float = 0.5,
    first_codebook_weight: float = 3.0,
) -> LanguageModelLoss:
    """Loss of teacher-forced logits on the streams they were computed from.

    Args:
      logits: of `helium_jax.forward`.
      streams: text, agent and user codes by training frame; -1 where unknown.
      padding_weight: of PAD and EPAD in the text loss.
      first_codebook_weight: of the semantic codebook in the audio loss, the others have 1.
    """
    text, audio = streams[:, 0], streams[:, 1 : 1 + logits.audio.shape[1]]
    said = (text != PAD) & (text != EPAD)
    text_weight = jnp.where(said, 1.0, padding_weight) * logits.text_mask
    levels = jnp.ones(audio.shape[1]).at[0].set(first_codebook_weight)
    audio_weight = levels[:, None] * logits.audio_mask
    text_nats, audio_nats = _nats(logits.text, text), _nats(logits.audio, audio)
    return LanguageModelLoss(
        text=_mean(text_nats, text_weight),
        audio=_mean(audio_nats, audio_weight),
        words=_mean(text_nats, said * logits.text_mask),
        first=_mean(audio_nats[:, 0], logits.audio_mask[:, 0]),
    )


def _nats(logits: Float[Array, "*B V"], targets: Int[Array, "*B"]) -> Float[Array, "*B"]:
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    chosen = jnp.maximum(targets, 0)[..., None]
    return -jnp.take_along_axis(log_probs, chosen, axis=-1)[..., 0]


def _mean(values: Float[Array, "*B"], weights: Float[Array, "*B"]) -> Float[Array, ""]:
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1e-6)
