from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moshi_jax.verify.functions import NOT_IMPLEMENTED, check_functions, is_of_functions
from moshi_jax.verify.recording import read_recording

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(scope="module")
def ops():
    return read_recording(GOLDEN / "ops.safetensors")


def test_only_a_recording_of_functions_is_taken_for_one(ops):
    assert is_of_functions(ops)
    for other in ("mimi_personaplex", "checkpoint_moshi_tiny_e2e"):
        assert not is_of_functions(read_recording(GOLDEN / f"{other}.safetensors"))


def test_every_function_is_compared_or_named_as_not_implemented(ops):
    checks = list(check_functions(ops))
    assert all(check.passed for check in checks)
    compared = {check.text.split()[0] for check in checks[:-1]}
    assert compared == set(ops.outputs) - NOT_IMPLEMENTED
    assert len(compared) > 20
    assert checks[-1].text.startswith(f"{len(compared)} of {len(ops.outputs)} functions compared")
    assert all(name in checks[-1].text for name in NOT_IMPLEMENTED & set(ops.outputs))


@pytest.mark.parametrize(
    "name, step",
    [("gelu", 1e-3), ("ring_positions_fork_T2", 1), ("rms_norm_f32_bf16", 1), ("undelay_mask", 1)],
)
def test_one_wrong_number_fails(ops, name, step):
    wrong = ops.outputs[name].copy()
    if wrong.dtype == bool:
        wrong.flat[0] = not wrong.flat[0]
    else:
        wrong.flat[0] += step
    kept = {key: value for key, value in ops.tensors.items() if key.startswith("inputs/")}
    kept[f"expected/{name}"] = wrong
    (check,) = check_functions(replace(ops, tensors=kept))
    assert not check.passed and name in check.text


def test_a_function_that_nobody_knows_fails(ops):
    tensors = {"expected/wavelet": np.zeros(3, np.float32)}
    (check,) = check_functions(replace(ops, tensors=tensors))
    assert not check.passed and "wavelet is a function this version does not know" in check.text
