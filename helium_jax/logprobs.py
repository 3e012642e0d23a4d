"""Log-probs of a recorded session under the distributions that its tokens were drawn from."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from helium_jax.forward import forward
from helium_jax.model import Moshi
from helium_jax.sampling import Sampling
from layers_jax.functional import Params


def trajectory_log_probs(
    lm: Moshi,
    params: Params,
    codes: Int[Array, "B K T"],
    sampling: Sampling,
    conditions: Int[Array, "B C"] | None = None,
) -> tuple[Float[Array, "B J T"], Bool[Array, "B J T"]]:
    """What `step` reported when it drew these tokens, from one teacher-forced pass.

    Args:
      lm: the model's definition (static), listed or stacked.
      params: its parameters, in the same layout.
      codes: text, agent and user streams by training frame; -1 where unknown.
      sampling: as in the step, without guidance.
      conditions: as in the step.

    Returns:
      Log-probs of the J generated streams (text, then codebooks), 0 where not known; and where
      they are: tokens that are unknown, and the last frames of delayed streams, are not.

    Raises:
      ValueError: tokens were drawn under guidance, which needs a second session.
    """
    if sampling.guidance is not None:
        raise ValueError(
            "sampling has guidance, expected none: its distributions depend on a second run"
        )
    logits = forward(lm, params, codes, conditions)
    targets = jnp.maximum(codes[:, : 1 + lm.config.dep_q], 0)
    text = sampling.text.log_probs_of(logits.text, targets[:, 0])
    audio = sampling.audio.log_probs_of(logits.audio, targets[:, 1:])
    known = jnp.concatenate([logits.text_mask[:, None], logits.audio_mask], axis=1)
    return jnp.where(known, jnp.concatenate([text[:, None], audio], axis=1), 0.0), known
