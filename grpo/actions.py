"""What counts as an action of the policy: a text token, or only whether the model speaks.

`TextTokens` is the policy of arXiv 2606.11167. `SpeakSilence` is that of ASPIRin (arXiv
2604.10065): the vocabulary falls into two classes, PAD and the rest, and ratio, KL and entropy are
those of the class, so that learning when to speak leaves the choice of words alone.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

Form = Literal["logsumexp", "sum"]


@dataclass(frozen=True)
class TextTokens:
    """Every text token is an action."""

    def log_probs(self, logits: Float[Array, "*B V"], temperature: float) -> Float[Array, "*B V"]:
        """Log-prob of every action under softmax(logits / temperature), in float32."""
        return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)

    def of(self, tokens: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The action that each token is."""
        return tokens


@dataclass(frozen=True)
class SpeakSilence:
    """Two actions: 0 stays silent (PAD), 1 speaks (any other token).

    Attributes:
        pad: the PAD token.
        form: "logsumexp" is the exact marginal, P(silent) = p(PAD). "sum" adds up raw logits, as
            the equation in the paper is printed: not a marginal, it changes when a constant is
            added to all logits and saturates at a real vocabulary. Kept to reproduce it.
    """

    pad: int
    form: Form = "logsumexp"

    def log_probs(self, logits: Float[Array, "*B V"], temperature: float) -> Float[Array, "*B 2"]:
        """Log-prob of the two actions, in float32."""
        scaled = logits.astype(jnp.float32) / temperature
        silent = scaled[..., self.pad]
        is_pad = jnp.arange(logits.shape[-1]) == self.pad
        if self.form == "sum":
            active = jnp.where(is_pad, 0.0, scaled).sum(axis=-1)
        else:
            active = jax.nn.logsumexp(jnp.where(is_pad, -jnp.inf, scaled), axis=-1)
        return jax.nn.log_softmax(jnp.stack([silent, active], axis=-1), axis=-1)

    def of(self, tokens: Int[Array, "*B"]) -> Int[Array, "*B"]:
        """The action that each token is."""
        return (tokens != self.pad).astype(jnp.int32)


ActionSpace = TextTokens | SpeakSilence
