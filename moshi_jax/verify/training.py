"""Checks of a recording of the pre-training loss and its gradients."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from convert.sources import abstract_params, memory_source
from helium_jax import Moshi, TokenLoss, forward, token_loss
from layers_jax.functional import Params
from moshi_jax.verify.check import Check, close, equal
from moshi_jax.verify.recording import Recording
from moshi_jax.verify.runs import load, read_config

LOSS_TOLERANCE, NORM_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-3, 1e-3  # relative


def check_training(recording: Recording) -> Iterator[Check]:
    """Compares losses, masks, gradient norms of all tensors, and whole gradients of some."""
    config = read_config(recording)
    lm, params = load(config, recording)
    codes = jnp.asarray(recording.tensors["inputs/codes"])
    for kind in ("text", "audio"):
        expected = recording.tensors[f"expected/{kind}_mask"]
        mask = getattr(jax.jit(lambda p: forward(lm, p, codes))(params), f"{kind}_mask")
        got = np.asarray(mask).reshape(expected.shape)
        yield equal(f"{kind} mask", got, expected, np.ones(expected.shape, bool))
    for name in sorted(recording.runs):
        options = recording.provenance["options"][name]
        yield from _check_weighting(recording, name, lm, params, codes, options)


def _check_weighting(
    recording: Recording, name: str, lm: Moshi, params: Params, codes: jax.Array, options: dict
) -> Iterator[Check]:
    def loss(params: Params) -> tuple[jax.Array, TokenLoss]:
        parts = token_loss(
            lm.config,
            forward(lm, params, codes),
            codes,
            first_codebook_weight=options["first_codebook_weight_multiplier"],
            text_padding_weight=options["text_padding_weight"],
        )
        return parts.value(), parts

    (value, parts), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    expected = recording.expected(name)
    for what, got in (
        ("loss", value),
        ("loss_text", parts.text.mean()),
        ("loss_audio", parts.audio.mean()),
        ("loss_per_codebook", parts.per_codebook.mean()),
    ):
        yield _relative(f"{name} {what}", np.asarray(got), expected[what], LOSS_TOLERANCE)

    shapes = abstract_params(lm.config)
    released = memory_source(lm.config, gradients, shapes, subject="gradients")
    names = recording.provenance["grad_names"]
    norms = np.array([np.linalg.norm(released.read(key)) for key in names])
    yield _relative(f"{name} gradient norms", norms, expected["grad_norms"], NORM_TOLERANCE)
    total = np.asarray(np.linalg.norm(norms))
    yield _relative(f"{name} gradient norm", total, expected["grad_global_norm"], NORM_TOLERANCE)
    for key, wanted in expected.items():
        if key.startswith("grads/"):
            got = released.read(key.removeprefix("grads/"))
            yield _scaled(f"{name} {key}", got, wanted)


def _relative(what: str, got: np.ndarray, expected: np.ndarray, tolerance: float) -> Check:
    got = np.asarray(got, np.float64).reshape(expected.shape)
    return close(what, got / expected, np.ones(expected.shape), tolerance)


def _scaled(what: str, got: np.ndarray, expected: np.ndarray) -> Check:
    scale = np.abs(expected).max()
    return close(what, got / scale, expected / scale, GRADIENT_TOLERANCE)
