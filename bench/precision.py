"""`bench precision`: what bf16 and int8 weights cost in the probabilities of a checkpoint.

The model talks with a recording in f32; then every format is shown that same conversation, teacher
forced, and its distributions are compared with those of f32, frame by frame.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, Float, Int

from bench.machine import describe_machine
from convert import load_mimi, load_moshi
from helium_jax import Logits, Moshi, MoshiState, Sampling, forward, init_state, step
from layers_jax import Precision, atomic_path
from layers_jax.functional import Params
from mimi_jax import encode, read_audio

__all__ = ["Cost", "compare", "conversation", "main"]

FORMATS = {"bf16": Precision.bf16(), "int8": Precision.int8_weights()}


@dataclass(frozen=True, kw_only=True)
class Options:
    """What number formats cost in the probabilities of a checkpoint, compared with f32.

    KL is the mean over known positions of KL(f32 || format), in nats; log-prob is the mean change
    of the log-probability of the token that was said; agreement is the share of positions whose
    most probable token is the same.
    """

    checkpoint: Path = Path(str(files("moshi_jax.nano")))
    """Checkpoint folder; the embedded one by default."""
    recording: Path = Path(str(files("moshi_jax"))) / "sample" / "conversation.flac"
    """Two-channel recording, the user on the right; the sample conversation by default."""
    frames: int = 500
    """How much of it, in frames of 80 ms."""
    seed: int = 0
    """Of the conversation."""
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """File for the figures."""


@dataclass(frozen=True)
class Cost:
    """Of one kind of token in one format; f32 is the standard."""

    kl: float
    log_prob: float
    agreement: float
    positions: int


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see `Options`."""
    options = tyro.cli(Options, args=argv, prog="moshi-jax bench precision")
    lm, params = load_moshi(options.checkpoint, precision=Precision.f32())
    mimi, mimi_params = load_mimi(options.checkpoint)
    pcm = read_audio(options.recording, sample_rate=mimi.config.sample_rate)[-1:]
    pcm = pcm[:, : options.frames * mimi.config.frame_samples]
    user = jax.jit(lambda params, pcm: encode(mimi, params, pcm))(mimi_params, jnp.asarray(pcm))
    codes = conversation(lm, params, user, seed=options.seed)
    standard = _logits(lm, params, codes)
    print(f"{'format':<8}{'tokens':<8}{'KL, nats':>12}{'log-prob':>12}{'agreement':>11}")
    costs: dict[str, dict[str, Cost]] = {}
    for name, precision in FORMATS.items():
        other, other_params = load_moshi(options.checkpoint, precision=precision)
        costs[name] = compare(standard, _logits(other, other_params, codes), codes)
        for tokens, cost in costs[name].items():
            print(
                f"{name:<8}{tokens:<8}{cost.kl:>12.2e}{cost.log_prob:>12.2e}"
                f"{cost.agreement:>10.2%} of {cost.positions}"
            )
    if options.json is not None:
        report = {
            "machine": describe_machine(),
            "costs": {n: {t: asdict(c) for t, c in kinds.items()} for n, kinds in costs.items()},
        }
        with atomic_path(options.json) as path:
            path.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def conversation(
    lm: Moshi, params: Params, user: Int[Array, "B U T"], *, seed: int = 0
) -> Int[Array, "B K S"]:
    """What the model says to a user, as training frames: S = T - max_delay - 1, all known."""
    batch, _, length = user.shape
    state = init_state(lm, batch, seed=seed)

    @jax.jit
    def run(params: Params, state: MoshiState, heard: jax.Array) -> jax.Array:
        def call(state: MoshiState, codes: jax.Array) -> tuple[MoshiState, jax.Array]:
            state, output = step(lm, params, state, codes, sampling=Sampling())
            return state, output.tokens

        return jax.lax.scan(call, state, heard)[1]

    tokens = run(params, state, jnp.moveaxis(user, 2, 0))  # [T, B, 1 + Q], by call
    delay = lm.config.max_delay
    frames = length - delay - 1
    said = jnp.moveaxis(tokens[delay : delay + frames], 0, 2)
    return jnp.concatenate([said, user[:, :, 1 : 1 + frames]], axis=1)


def compare(standard: Logits, other: Logits, codes: Int[Array, "B K T"]) -> dict[str, Cost]:
    """The cost of another format for text and for audio tokens."""
    books = standard.audio.shape[1]
    audio = codes[:, 1 : 1 + books]
    return {
        "text": _cost(standard.text, other.text, codes[:, 0], standard.text_mask),
        "audio": _cost(standard.audio, other.audio, audio, standard.audio_mask),
    }


def _cost(
    standard: Float[Array, "*B V"],
    other: Float[Array, "*B V"],
    tokens: Int[Array, "*B"],
    known: Array,
) -> Cost:
    p, q = (jax.nn.log_softmax(x.astype(jnp.float32), axis=-1) for x in (standard, other))
    where = np.asarray(known)
    kl = np.asarray(jnp.sum(jnp.exp(p) * (p - q), axis=-1))[where]
    index = jnp.maximum(tokens, 0)[..., None]
    change = np.asarray(jnp.take_along_axis(q - p, index, axis=-1))[..., 0][where]
    same = np.asarray(jnp.argmax(p, axis=-1) == jnp.argmax(q, axis=-1))[where]
    return Cost(float(kl.mean()), float(change.mean()), float(same.mean()), int(where.sum()))


def _logits(lm: Moshi, params: Params, codes: jax.Array) -> Logits:
    return jax.jit(lambda params, codes: forward(lm, params, codes))(params, codes)
