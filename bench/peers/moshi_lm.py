"""PyTorch's step beside ours: the same weights, the same tokens, turn by turn on one thread.

The reference (`LMGen.step` of moshi 0.2.13) runs as it does on a CPU: eager, float32. Both sides
run the language model alone, on the same random user codes.
"""

import os
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.threads import limit_threads

if TYPE_CHECKING:
    from bench.step import StepOptions

__all__ = ["against_moshi", "check_tokens"]

PIP = "pip install torch==2.13.0 einops sentencepiece && pip install --no-deps moshi==0.2.13"


def against_moshi(options: "StepOptions") -> int:
    """`bench step --against moshi`: compares tokens, then processor time, and prints the ratio.

    Raises:
      ImportError: PyTorch or the reference is not installed.
      ValueError: the options ask for what only our side can do.
    """
    if options.checkpoint is not None or options.dtype != "f32" or options.batch != "1":
        raise ValueError(
            "--against moshi got a checkpoint, a dtype or a batch, expected a preset in f32 with "
            "one session: that is what the reference runs on a CPU"
        )
    limit_threads(1)
    torch, loaders, lm_module = _reference()
    import jax

    from bench.machine import describe_machine
    from bench.presets import preset
    from bench.timing import alternate
    from helium_jax import Sampling, init_state, step

    shape = preset(options.preset).lm
    lm, params, tensors = _weights(shape)
    kwargs = {**shape.to_dict(), "depformer_context": shape.dep_q}
    model = loaders.get_moshi_lm(None, kwargs, dtype=torch.float32).eval()
    with torch.no_grad():
        model.load_state_dict({name: torch.from_numpy(v) for name, v in tensors.items()})
    rng = np.random.default_rng(0)
    user = rng.integers(0, shape.card, (64, 1, shape.num_user_codebooks)).astype(np.int32)
    theirs_in = torch.from_numpy(user.astype(np.int64))[..., None]

    def ours(sampling: Any) -> Any:
        program = jax.jit(
            lambda params, state, codes: step(lm, params, state, codes, sampling=sampling),
            donate_argnums=1,
        )
        box, turn = [init_state(lm, 1)], [0]
        compiled = program.lower(params, box[0], user[0]).compile()

        def call() -> np.ndarray:
            box[0], out = compiled(params, box[0], user[turn[0] % len(user)])
            turn[0] += 1
            return np.asarray(out.tokens)[0]

        return call

    def theirs(generator: Any) -> Any:
        turn = [0]

        def call() -> Any:
            with torch.no_grad():
                out = generator.step(theirs_in[turn[0] % len(user)])
            turn[0] += 1
            return None if out is None else out[0, :, 0].numpy()

        return call

    greedy = lm_module.LMGen(model, use_sampling=False)
    with greedy.streaming(1):
        frames = check_tokens(ours(Sampling.greedy()), theirs(greedy), options.frames)
    sampled = lm_module.LMGen(model)
    with sampled.streaming(1):
        taken = alternate(
            {"jax": ours(Sampling()), "moshi": theirs(sampled)},
            rounds=options.frames,
            warmup=options.warmup,
        )
    for name, value in describe_machine("torch", "moshi").items():
        print(f"{name:<12} {value}")
    print(f"\n{options.preset}: language model, f32, one session, one core, sampling as released")
    print(f"tokens       equal in {frames} greedy frames")
    for name, samples in taken.items():
        print(
            f"{name:<12} {samples.median_cpu_ms:.1f} ms of processor time a frame (median), "
            f"least {samples.cpu_s.min() * 1e3:.1f}, wall {samples.median_ms:.1f}"
        )
    ratios = taken["jax"].cpu_s / taken["moshi"].cpu_s
    low, high = np.quantile(ratios, [0.05, 0.95])
    print(
        f"ratio        {taken['jax'].median_cpu_ms / taken['moshi'].median_cpu_ms:.3f} "
        f"(90 % of single frames {low:.2f} to {high:.2f})"
    )
    return 0


def check_tokens(ours: Any, theirs: Any, frames: int) -> int:
    """Runs both and compares what they say.

    Returns:
      How many frames had tokens, all of them equal.

    Raises:
      ValueError: a frame differs, or none had tokens.
    """
    said = 0
    for frame in range(frames):
        got, expected = ours(), theirs()
        if expected is None:
            continue
        if not np.array_equal(got, expected):
            raise ValueError(
                f"frame {frame}: tokens are {got.tolist()}, PyTorch says {expected.tolist()}; "
                "the two do not compute the same, so their times are not compared"
            )
        said += 1
    if not said:
        raise ValueError(f"no tokens in {frames} frames, expected some; raise --frames")
    return said


def _weights(config: Any) -> tuple[Any, Any, dict[str, np.ndarray]]:
    """Definition, random parameters, and the same values under the reference's names."""
    from flax import nnx

    from bench.weights import random_weights
    from convert.sources import abstract_params, memory_source
    from helium_jax import Moshi
    from layers_jax.functional import abstract

    lm = abstract(lambda: Moshi(config, rngs=nnx.Rngs(0)))
    shapes = abstract_params(config)
    params = random_weights(shapes)
    source = memory_source(config, params, shapes, subject="random weights")
    return lm, params, {name: np.array(source.read(name)) for name in source.tensors}


def _reference() -> tuple[Any, Any, Any]:
    os.environ.setdefault("NO_TORCH_COMPILE", "1")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the reference's own
            import torch
            from moshi.models import lm, loaders
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--against moshi needs {error.name}, which is not installed; run: {PIP}"
        ) from error
    torch.set_num_threads(1)
    return torch, loaders, lm
