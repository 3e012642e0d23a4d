"""The head that makes the model hear the user: its loss, and that nothing of it stays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helium_jax import delayed_grid
from layers_jax import bind
from moshi_jax.pretrain.user_head import (
    add_user_head,
    drop_user_head,
    user_loss,
    with_user_head,
)


def test_the_target_is_the_users_semantic_code_of_the_frame(small):
    lm = with_user_head(small.lm)
    params = add_user_head(lm, small.params, 0)
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, (2, 5, 6)).astype(np.int32)
    codes[1, :, 4:] = -1
    fed, targets = delayed_grid(lm.config, jnp.asarray(codes))

    @jax.jit
    def both(params):
        model = bind(lm, params)
        hidden = model.hidden(fed)
        return user_loss(model, hidden, targets), model.extra_heads[0](hidden)

    loss, logits = both(params)
    log_probs = jax.nn.log_softmax(logits)
    wanted = [-log_probs[b, t, codes[b, 3, t]] for b in range(2) for t in range(6 - 2 * b)]
    assert loss.weight == len(wanted) == 10
    np.testing.assert_allclose(loss.total, sum(wanted), rtol=1e-5)


def test_it_is_taken_off_again(small):
    lm = with_user_head(small.lm)
    plain, params = drop_user_head(lm, add_user_head(lm, small.params, 0))
    assert plain.config == small.lm.config
    assert jax.tree.structure(params) == jax.tree.structure(small.params)


def test_a_model_without_a_user_is_refused(small):
    with pytest.raises(ValueError, match="got 2 codebooks of the user and 1 extra heads"):
        with_user_head(with_user_head(small.lm))
