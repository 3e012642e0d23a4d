"""The one step: live sessions, files, batches and rollouts all call this function.

What a call hears, decides and gives, and in which program's timing, is in `helium_jax.grid`.
Source: `LMGen` in moshi/models/lm.py, and in that of NVIDIA/personaplex.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from helium_jax import guidance as cfg
from helium_jax.config import MoshiConfig
from helium_jax.grid import NOT_READY, UNKNOWN, Given, Grid, begin, finish
from helium_jax.model import Moshi
from helium_jax.sampling import Noise, Sampling
from helium_jax.state import MoshiState, StepOutput
from layers_jax import RingCache, bind
from layers_jax.functional import Params


def step(
    lm: Moshi,
    params: Params,
    state: MoshiState,
    user_codes: Int[Array, "B U"] | None,
    *,
    sampling: Sampling,
    exec_mask: Bool[Array, " B"] | None = None,
    noise: Noise | None = None,
    given: Given | None = None,
    conditions: Int[Array, "B *P C"] | None = None,
    draw_user: bool | None = None,
) -> tuple[MoshiState, StepOutput]:
    """One frame: the user's codes in, the agent's text and codes out.

    Args:
      lm: the model's definition (static).
      params: its parameters.
      state: sessions so far; donate it.
      user_codes: U codes of the user's frame; None lets a model that can do so draw them itself.
      sampling: how tokens are drawn (static).
      exec_mask: rows to run, all by default; the others' state is untouched.
      noise: recorded Exp(1) draws by rank for text [B, R] and audio [B, dep_q, S], in place of the
        rows' own.
      given: tokens to take instead of drawing them.
      conditions: `condition_rows` [B, C] of a model that has conditioners; under guidance
        [B, 2, C], what to follow and what to avoid.
      draw_user: whether the depth transformer goes through the user's codebooks too (static); by
        default only without `user_codes`. Else its loop ends before them, and a code that no call
        gave counts as unknown (-1). True is for sessions that change between hearing a user and
        drawing one; codes are `NOT_GIVEN` where nobody is heard.

    Raises:
      ValueError: the inputs are not those of this model.
    """
    config, guidance = lm.config, sampling.guidance
    given = given or Given()
    _check(config, state, user_codes, given, conditions, sampling)
    batch = state.offset.shape[0]
    model = bind(lm, params)
    mask = jnp.ones(batch, bool) if exec_mask is None else exec_mask
    grid = begin(config, state.tokens, state.offset, user_codes, given, mask)
    hidden, caches = _temporal(model, grid, state.caches, conditions, sampling)

    # All noise of the frame in one draw: values depend on the stream alone, not on who asks first.
    text_noise, audio_noise = noise or sampling.noise(config, state.keys, state.offset)
    chosen: list[jax.Array] = []
    log_probs: list[jax.Array] = []

    def take(tokens: jax.Array, log_prob: jax.Array) -> jax.Array:
        """What was drawn for the next stream, unless its token is known."""
        target = grid.target[:, len(chosen)]
        known = target != NOT_READY
        chosen.append(jnp.where(known, target, tokens))
        log_probs.append(jnp.where(known, 0.0, log_prob))
        return chosen[-1]

    logits = model.text_logits(hidden)
    if guidance is not None:
        logits = cfg.guided(logits, guidance, text=True)
    text = take(*sampling.text(logits, text_noise))

    def choose(k: int, logits: jax.Array) -> jax.Array:
        logits = logits if guidance is None else cfg.guided(logits, guidance)
        tokens = take(*sampling.audio(logits, None if audio_noise is None else audio_noise[:, k]))
        return tokens if guidance is None else cfg.twice(tokens)

    if given.depth is not None:
        chosen += [given.depth[:, k] for k in range(config.dep_q)]
        log_probs += [jnp.zeros(batch)] * config.dep_q
    elif model.depth is not None:
        through = user_codes is None if draw_user is None else draw_user
        steps = config.dep_q if through else min(config.dep_q, config.num_agent_codebooks)
        before = text if guidance is None else cfg.twice(text)
        model.depth.unroll(hidden, before, choose, steps, config.last_codebook_sees_text)
        for _ in range(steps, config.dep_q):
            take(jnp.full(batch, UNKNOWN, jnp.int32), jnp.zeros(batch))

    decided = jnp.stack(chosen, axis=1)
    tokens, frame, valid = finish(config, grid, decided)
    output = StepOutput(
        tokens=frame,
        valid=valid,
        drawn=jnp.where(grid.runs[:, None], decided, NOT_READY),
        log_probs=jnp.stack(log_probs, axis=1),
        extra=model.extra_probabilities(hidden if guidance is None else hidden[::2]),
    )
    offset = state.offset + mask
    return MoshiState(offset=offset, tokens=tokens, keys=state.keys, caches=caches), output


@jax.named_scope("temporal")
def _temporal(
    model: Moshi,
    grid: Grid,
    caches: list[RingCache],
    conditions: jax.Array | None,
    sampling: Sampling,
) -> tuple[Float[Array, "N D"], list[RingCache]]:
    """The temporal side of the call; two rows a session under guidance."""
    condition = None
    if conditions is not None:
        condition = model.condition(conditions.reshape(-1, conditions.shape[-1]))
    clock = jnp.maximum(grid.position, 0)  # rows before their first position do not run
    if sampling.guidance is None:
        return model.hidden_step(grid.fed, caches, clock, grid.runs, condition)
    fed = cfg.null_inputs(model.config, grid.fed, clock, sampling.guidance)
    hidden, rows = model.hidden_step(
        fed, cfg.as_rows(caches), cfg.twice(clock), cfg.twice(grid.runs), condition
    )
    return hidden, cfg.as_pairs(rows)


def _check(
    config: MoshiConfig,
    state: MoshiState,
    user_codes: jax.Array | None,
    given: Given,
    conditions: jax.Array | None,
    sampling: Sampling,
) -> None:
    """Shapes and combinations; values cannot be seen inside a trace."""
    batch, needed = state.offset.shape[0], config.num_user_codebooks
    if user_codes is None:
        if config.timing != "personaplex" and needed:
            raise ValueError(
                f"user_codes is None, expected {needed} codebooks: the model cannot draw what the "
                "user says (dep_q is below n_q)"
            )
    elif config.n_q and not needed:
        raise ValueError(
            "user_codes are given, but the model generates the user's codebooks too (dep_q equals "
            "n_q) and a step with 'kyutai' timing would not hear them; give its config to "
            "as_personaplex, or None as user_codes to let it talk to itself"
        )
    elif user_codes.shape[1] != needed:
        raise ValueError(
            f"user_codes has {user_codes.shape[1]} codebooks, expected {needed} "
            f"(n_q {config.n_q}, dep_q {config.dep_q}, timing {config.timing!r}); set the codec's "
            "num_codebooks, or the model's timing"
        )
    for name, codes, count in (
        ("agent", given.agent, config.num_agent_codebooks),
        ("depth", given.depth, config.dep_q),
    ):
        if codes is not None and codes.shape != (batch, count):
            raise ValueError(f"given.{name} is {codes.shape}, expected {(batch, count)}")
    paired = sampling.guidance is not None
    rings = state.caches[0].keys.ndim
    if rings != (5 if paired else 4):
        raise ValueError(
            f"guidance is {sampling.guidance}, but the state was made "
            f"{'with' if rings == 5 else 'without'} it; give init_state the same sampling"
        )
    if (conditions is None) != (not config.conditioners):
        raise ValueError(
            f"conditions are {'missing' if conditions is None else 'given'}, and the model has "
            f"{len(config.conditioners)} conditioners; see condition_rows"
        )
    if conditions is not None:
        shape = (batch, *[2] * paired, len(config.conditioners))
        if conditions.shape != shape:
            raise ValueError(f"conditions are {conditions.shape}, expected {shape}")
