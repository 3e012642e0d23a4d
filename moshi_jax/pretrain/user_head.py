"""A head that predicts the user's semantic codebook: a teacher, not a part of the model.

Fine-tuning asks Moshi for the agent's tokens only, so nothing asks a model that starts from nothing
to hear the user. The head does, and is left out of what is exported. It is one of the extra heads
that the architecture has anyway.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from helium_jax import Moshi
from helium_jax.loss import WeightedSum
from layers_jax.functional import Params, abstract

__all__ = ["add_user_head", "drop_user_head", "user_loss", "with_user_head"]


def with_user_head(lm: Moshi) -> Moshi:
    """The definition of `lm` with the head.

    Raises:
        ValueError: it has extra heads already, or no user.
    """
    config = lm.config
    if config.extra_heads_num_heads or not config.num_user_codebooks:
        raise ValueError(
            f"user_weight needs a model that hears a user and has no extra heads, got "
            f"{config.num_user_codebooks} codebooks of the user and "
            f"{config.extra_heads_num_heads} extra heads; leave user_weight at 0"
        )
    config = replace(config, extra_heads_num_heads=1, extra_heads_dim=config.card)
    return abstract(lambda: Moshi(config, precision=lm.precision, rngs=nnx.Rngs(0)))


def add_user_head(lm: Moshi, params: Params, seed: int) -> Params:
    """Parameters of `lm` and a fresh head, drawn on the host: the same whatever the devices."""
    dim, card = lm.config.dim, lm.config.card
    rng = np.random.default_rng([seed, 0x05E2])
    kernel = rng.uniform(-(dim**-0.5), dim**-0.5, (dim, card)).astype(np.float32)
    return {**params, "extra_heads": [{"kernel": jnp.asarray(kernel, lm.precision.params)}]}


def drop_user_head(lm: Moshi, params: Params) -> tuple[Moshi, Params]:
    """Inverse of `with_user_head` and `add_user_head`."""
    plain = replace(lm.config, extra_heads_num_heads=0, extra_heads_dim=6)
    rest = {name: part for name, part in params.items() if name != "extra_heads"}
    return abstract(lambda: Moshi(plain, precision=lm.precision, rngs=nnx.Rngs(0))), rest


def user_loss(
    model: Moshi, hidden: Float[Array, "B T D"], targets: Int[Array, "B K T"]
) -> WeightedSum:
    """Cross-entropy, in nats, of the user's semantic code in the frame that is predicted.

    Args:
        model: bound, with the head.
        hidden: normed temporal output on the delayed grid.
        targets: what that grid predicts.
    """
    assert model.extra_heads is not None
    stream = 1 + model.config.num_agent_codebooks
    wanted = targets[:, stream]
    known = (wanted >= 0) & (wanted < model.config.card)  # not the token before the first frame
    logits = model.extra_heads[0](hidden).astype(jnp.float32)
    log_probs = jax.nn.log_softmax(logits, axis=-1)
    picked = jnp.take_along_axis(log_probs, jnp.where(known, wanted, 0)[..., None], axis=-1)
    nats = jnp.where(known, -picked[..., 0], 0.0)
    return WeightedSum(jnp.sum(nats), jnp.sum(known, dtype=jnp.float32))
