"""Against the PyTorch package itself, at a size between a test's and a model's."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convert import params_from_tensors
from helium_jax import Moshi, MoshiConfig, Sampling, forward, init_state, step
from layers_jax import Precision
from layers_jax.functional import abstract

pytestmark = pytest.mark.parity

CONFIG = MoshiConfig(
    dim=256,
    text_card=500,
    card=128,
    num_heads=8,
    num_layers=6,
    context=16,
    depformer_dim=64,
    depformer_dim_feedforward=264,
    depformer_num_heads=4,
    depformer_num_layers=3,
)
CALLS = 3 * CONFIG.context


@pytest.fixture(scope="module")
def oracle():
    """A random model of the reference, its tensors, and a greedy session with a random user."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from moshi.models import lm as lm_module
        from moshi.models import loaders

        torch.manual_seed(11)
        kwargs = {**CONFIG.to_dict(), "depformer_context": CONFIG.dep_q}
        model = loaders.get_moshi_lm(None, kwargs, dtype=torch.float32).eval()
        for parameter in model.parameters():  # values that bf16 holds: both formats see the same
            parameter.copy_(parameter.bfloat16().float())
        user = torch.randint(0, CONFIG.card, (CALLS, 1, 8, 1))
        generator = lm_module.LMGen(model, use_sampling=False)
        with generator.streaming(1):
            said = [generator.step(codes) for codes in user]
        tensors = {name: value.numpy() for name, value in model.state_dict().items()}
        agent = torch.cat([frame for frame in said if frame is not None], dim=-1)
        codes = torch.cat([agent, user[1:, 0, :, 0].T[None]], dim=1)
        logits = {}
        for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
            out = model.to(dtype)(codes)
            logits[name] = out.text_logits[0, 0].float().numpy()
    return tensors, user[..., 0].numpy(), codes.numpy().astype(np.int32), logits


def ours(precision, tensors):
    lm = abstract(lambda: Moshi(CONFIG, precision=precision, rngs=nnx.Rngs(0)))
    return lm, params_from_tensors(CONFIG, tensors, dtype=precision.params)


def test_three_contexts_of_greedy_tokens_are_the_references(oracle):
    tensors, user, codes, _ = oracle
    lm, params = ours(Precision.f32(), tensors)

    def scan(params, user):
        def body(state, heard):
            return step(lm, params, state, heard, sampling=Sampling.greedy())

        return jax.lax.scan(body, init_state(lm, 1), user)[1]

    out = jax.jit(scan)(params, jnp.asarray(user, jnp.int32))
    np.testing.assert_array_equal(np.asarray(out.tokens)[1:, 0].T, codes[0, :9])
    assert len(np.unique(codes[0, 0])) > 10


def test_bf16_is_as_far_from_f32_as_the_references_bf16_is(oracle, capsys):
    """Teacher-forced text: mean KL to the reference's f32, and how often the argmax agrees."""
    tensors, _, codes, logits = oracle
    lm, params = ours(Precision.bf16(), tensors)
    run = jax.jit(lambda params, codes: forward(lm, params, codes).text[0])
    got = np.asarray(run(params, jnp.asarray(codes)), np.float32)

    def distance(other):
        p, q = (jax.nn.log_softmax(jnp.asarray(x), axis=-1) for x in (logits["f32"], other))
        agree = np.mean(np.argmax(other, -1) == np.argmax(logits["f32"], -1))
        return float(jnp.mean(jnp.sum(jnp.exp(p) * (p - q), axis=-1))), float(agree)

    (kl, agree), (their_kl, their_agree) = distance(got), distance(logits["bf16"])
    with capsys.disabled():
        print(
            f"\nbf16 against f32: KL {kl:.2e}, argmax {agree:.3f}; PyTorch's own bf16: "
            f"KL {their_kl:.2e}, argmax {their_agree:.3f}"
        )
    assert 0 < kl < 2 * their_kl and agree > 0.9
