"""The pre-training loss: cross-entropy of text and of codebooks under teacher forcing.

Source: `compute_loss_with_mask` in finetune/loss.py of kyutai-labs/moshi-finetune.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from helium_jax.config import MoshiConfig
from helium_jax.forward import Logits


class WeightedSum(NamedTuple):
    """A sum and the weight it stands for: adds up over batches and devices, unlike a mean."""

    total: Float[Array, "*B"]
    weight: Float[Array, "*B"]

    def mean(self) -> Float[Array, "*B"]:
        """The weighted mean; 0 where there is nothing."""
        return self.total / jnp.maximum(self.weight, jnp.finfo(jnp.float32).tiny)


class TokenLoss(NamedTuple):
    """Cross-entropies in nats."""

    text: WeightedSum
    audio: WeightedSum
    per_codebook: WeightedSum
    """[Q] of each codebook, every known token counting alike."""

    def value(self) -> Float[Array, ""]:
        """What is minimised: the mean of text plus the mean of audio."""
        return self.text.mean() + self.audio.mean()


def token_loss(
    config: MoshiConfig,
    logits: Logits,
    codes: Int[Array, "B K T"],
    *,
    first_codebook_weight: float = 1.0,
    text_padding_weight: float = 1.0,
) -> TokenLoss:
    """Loss of a batch; unknown tokens (-1) and frames that the delays cut off do not count.

    Args:
      config: of the model.
      logits: from `forward` on the same codes.
      codes: text, agent and user streams by training frame.
      first_codebook_weight: of the semantic codebook against the others.
      text_padding_weight: of frames whose text is PAD or EPAD against words.
    """
    text = codes[:, 0]
    audio = codes[:, 1 : 1 + config.dep_q]
    padding = (text == config.existing_text_padding_id) | (
        text == config.existing_text_end_padding_id
    )
    of_text = jnp.where(padding, text_padding_weight, 1.0) * logits.text_mask
    first = jnp.arange(config.dep_q)[:, None] == 0
    of_audio = jnp.where(first, first_codebook_weight, 1.0) * logits.audio_mask
    audio_nats = _cross_entropy(logits.audio, audio, logits.audio_mask)
    text_nats = _cross_entropy(logits.text, text, logits.text_mask)
    known = logits.audio_mask.astype(jnp.float32)
    return TokenLoss(
        text=WeightedSum(jnp.sum(of_text * text_nats), jnp.sum(of_text)),
        audio=WeightedSum(jnp.sum(of_audio * audio_nats), jnp.sum(of_audio)),
        per_codebook=WeightedSum(
            jnp.sum(known * audio_nats, axis=(0, 2)), jnp.sum(known, axis=(0, 2))
        ),
    )


def _cross_entropy(
    logits: Float[Array, "*B V"], targets: Int[Array, "*B"], mask: Bool[Array, "*B"]
) -> Float[Array, "*B"]:
    """Nats in f32, 0 outside the mask."""
    safe = jnp.where(mask, targets, 0)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    return jnp.where(mask, -jnp.take_along_axis(log_probs, safe[..., None], axis=-1)[..., 0], 0.0)
