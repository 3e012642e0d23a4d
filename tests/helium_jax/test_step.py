import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from helium_jax import Moshi, MoshiConfig, Sampler, Sampling, init_state, step
from layers_jax.functional import abstract

CALLS = 80


@pytest.fixture(scope="module")
def three_rows(kyutai):
    """`three_rows(inputs)`: one program, 80 greedy calls of three rows, for all recorded runs."""
    model, _ = kyutai
    run = model.calls(Sampling.greedy())

    def padded(inputs):
        calls, batch = inputs["user"].shape[:2]
        user = np.zeros((CALLS, 3, 8), np.int32)
        masks = {name: np.zeros((CALLS, 3), bool) for name in ("exec_mask", "reset_mask")}
        user[:calls, :batch] = inputs["user"]
        for name, default in (("exec_mask", True), ("reset_mask", False)):
            masks[name][:calls, :batch] = inputs.get(name, default)
        state, out = run(init_state(model.lm, 3), {"user": user, **masks})
        return state, jax.tree.map(lambda leaf: leaf[:calls, :batch], out)

    return padded


def recorded_run(tensors, name):
    return [
        {k[len(p) :]: v for k, v in tensors.items() if k.startswith(p)}
        for p in (f"inputs/{name}/", f"expected/{name}/")
    ]


def test_a_greedy_run_is_that_of_the_reference(kyutai, three_rows):
    """Over three contexts; what comes out, what was drawn, and from which call on."""
    tensors = kyutai[1]
    _, expected = recorded_run(tensors, "greedy")
    _, out = three_rows({"user": np.repeat(tensors["inputs/user"], 3, axis=1)})
    valid = expected["valid"]
    assert valid.tolist() == [False, *[True] * (CALLS - 1)]
    drawn = np.concatenate([expected["text_token"][..., None], expected["audio_tokens"]], axis=2)
    for row in range(3):
        np.testing.assert_array_equal(out.valid[:, row], valid)
        np.testing.assert_array_equal(out.tokens[:, row], expected["out"][:, 0])
        np.testing.assert_array_equal(out.drawn[:, row], drawn[:, 0])


def test_rows_that_stop_start_and_restart_are_those_of_the_reference(kyutai, three_rows):
    inputs, expected = recorded_run(kyutai[1], "batch")
    assert inputs["reset_mask"].any() and not inputs["exec_mask"].all()
    state, out = three_rows(inputs)
    np.testing.assert_array_equal(out.tokens, expected["out"])
    np.testing.assert_array_equal(out.valid, expected["out"][..., 0] != -2)
    np.testing.assert_array_equal(state.offset, expected["offsets"][-1])


def test_a_reset_restarts_one_row_only(kyutai, three_rows):
    """The reference silences the whole batch meanwhile; where it speaks we say the same."""
    inputs, expected = recorded_run(kyutai[1], "reset_in_sync")
    _, out = three_rows(inputs)
    valid = expected["valid"]
    np.testing.assert_array_equal(out.tokens[valid], expected["out"][valid])
    assert out.valid[:, 0].tolist() == [False, *[True] * 13]
    assert np.flatnonzero(~out.valid[:, 1]).tolist() == [0, 6]


@pytest.mark.parametrize("name", ["sampled", pytest.param("sampled_clip", marks=pytest.mark.slow)])
def test_a_sampled_run_is_that_of_the_reference_under_its_noise(kyutai, golden, name):
    model, tensors = kyutai
    options = golden("lm_kyutai").provenance["options"][name]
    sampling = Sampling(
        text=Sampler(temperature=options["temp_text"], top_k=options["top_k_text"]),
        audio=Sampler(temperature=options["temp"], top_k=options["top_k"]),
    )
    inputs, expected = recorded_run(tensors, name)
    _, out = model.calls(sampling)(init_state(model.lm, 2), inputs)
    valid = expected["valid"]
    np.testing.assert_array_equal(out.tokens[valid], expected["out"][valid])


def test_the_users_very_first_frame_is_never_seen(small, small_greedy, small_users):
    """Frame t of the user is given at call t + 1; any later frame does matter."""
    _, out = small_greedy(init_state(small.lm, 3), {"user": small_users})
    first, second = small_users.copy(), small_users.copy()
    first[0] = 10 - first[0]
    second[1] = 10 - second[1]
    _, same = small_greedy(init_state(small.lm, 3), {"user": first})
    _, other = small_greedy(init_state(small.lm, 3), {"user": second})
    np.testing.assert_array_equal(same.tokens, out.tokens)
    np.testing.assert_array_equal(other.tokens[0], out.tokens[0])
    assert np.any(other.tokens != out.tokens)


def test_tokens_depend_neither_on_the_batch_nor_on_the_place_in_it(
    small, small_sampled, small_users
):
    """A session that stops and goes on among others says what it says alone."""
    ids = jnp.array([7, 3, 5])
    mask = np.random.default_rng(0).random(small_users.shape[:2]) < 0.8
    state = init_state(small.lm, 3, seed=1, row_ids=ids)
    _, out = small_sampled(state, {"user": small_users, "exec_mask": mask})
    order = [2, 0, 1]
    state = init_state(small.lm, 3, seed=1, row_ids=ids[jnp.array(order)])
    _, moved = small_sampled(state, {"user": small_users[:, order], "exec_mask": mask[:, order]})
    np.testing.assert_array_equal(moved.tokens, out.tokens[:, order])
    for row in range(3):
        ran = mask[:, row]
        user = np.zeros((20, 1, 2), np.int32)
        user[: ran.sum(), 0] = small_users[ran, row]
        state = init_state(small.lm, 1, seed=1, row_ids=ids[row : row + 1])
        _, alone = small_sampled(state, {"user": user})
        np.testing.assert_array_equal(out.tokens[ran, row], alone.tokens[: ran.sum(), 0])
        np.testing.assert_allclose(
            out.log_probs[ran, row], alone.log_probs[: ran.sum(), 0], atol=1e-5
        )
    assert mask.any(0).all() and not mask.all()


def test_another_seed_says_something_else(small, small_sampled, small_users):
    runs = [small_sampled(init_state(small.lm, 3, seed=s), {"user": small_users}) for s in (1, 2)]
    assert np.any(runs[0][1].tokens != runs[1][1].tokens)


def test_outputs_join_what_was_drawn_at_different_calls(small, small_sampled, small_users):
    """Output of call i is frame i - 1: text and the semantic code of the call before, the rest."""
    _, out = small_sampled(init_state(small.lm, 3), {"user": small_users})
    np.testing.assert_array_equal(out.tokens[1:, :, :2], out.drawn[:-1, :, :2])
    np.testing.assert_array_equal(out.tokens[1:, :, 2], out.drawn[1:, :, 2])
    assert (out.tokens[0] == -2).all() and not out.valid[0].any()
    assert np.isfinite(out.log_probs).all() and (out.log_probs <= 0).all()


def test_one_program_serves_all_calls_and_uses_the_state_up(small, small_users):
    """Positions are data: no call beyond the context, nor a reset, compiles anew."""

    def call(lm, params, state, user, mask):
        return step(lm, params, state, user, sampling=Sampling.greedy(), exec_mask=mask)

    run = jax.jit(lambda *arguments: call(small.lm, *arguments), donate_argnums=1)
    state, everyone = init_state(small.lm, 3), jnp.ones(3, bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # XLA warns of donated buffers that it could not use
        for index in range(50):
            old, user = jax.tree.leaves(state), jnp.asarray(small_users[index % 20])
            state, _ = run(small.params, state, user, everyone)
            assert all(leaf.is_deleted() for leaf in old)
    assert state.offset.tolist() == [50] * 3
    assert run._cache_size() == 1


def test_user_codes_of_another_count_are_refused(small):
    with pytest.raises(
        ValueError, match=r"user_codes has 3 codebooks, expected 2 \(n_q 4, dep_q 2"
    ):
        step(
            small.lm,
            small.params,
            init_state(small.lm, 1),
            jnp.zeros((1, 3), int),
            sampling=Sampling.greedy(),
        )


def test_a_model_that_would_not_listen_is_refused(small):
    config = replace(small.config, n_q=4, dep_q=4)
    lm = abstract(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    user = jnp.zeros((1, 0), int)
    with pytest.raises(
        ValueError, match=r"'kyutai' timing would not hear them; give its config to as_pers"
    ):
        step(lm, {}, init_state(lm, 1), user, sampling=Sampling.greedy())


@pytest.mark.parity
def test_a_model_of_another_size_says_what_the_reference_says_live():
    """Random weights through the reference's own loader and generator, three contexts long."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oracle's own
        lm_module = pytest.importorskip("moshi.models.lm")
        loaders = pytest.importorskip("moshi.models.loaders")
    from convert import params_from_tensors

    config = MoshiConfig(
        dim=48,
        text_card=29,
        n_q=5,
        dep_q=3,
        card=23,
        num_heads=3,
        num_layers=2,
        context=16,
        depformer_dim=24,
        depformer_dim_feedforward=96,  # four times the width: the other rule
        depformer_num_heads=2,
        depformer_num_layers=1,
        delays=(0, 0, 2, 1, 0, 2),
    )
    torch.manual_seed(3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        kwargs = {**config.to_dict(), "depformer_context": config.dep_q}
        model = loaders.get_moshi_lm(None, kwargs, dtype=torch.float32).eval()
        user = torch.randint(0, config.card, (48, 1, 2, 1))
        generator = lm_module.LMGen(model, use_sampling=False)
        with generator.streaming(1):
            said = [generator.step(codes) for codes in user]
    expected = [None if out is None else out[0, :, 0].tolist() for out in said]
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}

    lm = abstract(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    params = params_from_tensors(config, tensors)

    def scan(params, user):
        def body(state, codes):
            return step(lm, params, state, codes, sampling=Sampling.greedy())

        return jax.lax.scan(body, init_state(lm, 1), user)[1]

    out = jax.jit(scan)(params, jnp.asarray(user[..., 0].numpy(), jnp.int32))
    tokens = np.asarray(out.tokens)[:, 0].tolist()
    got = [frame if valid else None for frame, valid in zip(tokens, out.valid[:, 0], strict=True)]
    assert expected[:2] == [None, None] and None not in expected[2:]
    assert len({frame[0] for frame in expected[2:]}) > 5
    assert got == expected
