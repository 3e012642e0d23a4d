import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from bench.mimi import agreement, main
from bench.random_codec import noise_pcm, random_codec
from mimi_jax import nano

SMALL = ["--size", "nano", "--batches", "2", "--rounds", "2", "--file-s", "0.5"]
COMMAND = [*SMALL, "--threads", "0"]  # the tests after these need the whole machine


@pytest.fixture(scope="module")
def printed():
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(COMMAND) == 0
    return out.getvalue()


def test_a_frame_and_a_file_are_timed_with_the_machine_and_the_compiler(printed):
    for line in ("processor  ", "state 12,080 values a session", "both steps, ", "whole signal of"):
        assert line in printed
    for work in ("moshi-jax encode ", "moshi-jax decode ", "moshi-jax both ", "batch 2: "):
        assert work in printed
    assert " 1.00x" in printed


def test_codes_are_held_against_ours():
    codes = {"moshi-jax": np.array([1, 2, 3]), "x": np.array([1, 2, 4]), "y": np.array([1, 2, 3])}
    assert agreement(codes) == {"x": (2, 3), "y": (3, 3)}


def test_what_cannot_be_compared_is_refused_before_any_work():
    with pytest.raises(ValueError, match=r"peer 'torchaudio' is unknown"):
        main(["--against", "torchaudio"])
    with pytest.raises(ImportError, match=r"got no packages for peers \{'moshi'"):
        _without_moshi()


def _without_moshi():
    from bench.peers import base

    packages = base.PEERS["moshi"]
    base.PEERS["moshi"] = (("no_such_package",), packages[1])
    try:
        main(["--against", "moshi"])
    finally:
        base.PEERS["moshi"] = packages


def test_a_random_codec_keeps_the_signal_and_uses_its_codebooks():
    import mimi_jax

    mimi, params = random_codec(nano())
    codes = np.asarray(mimi_jax.encode(mimi, params, jnp.asarray(noise_pcm(30 * 1920))[None]))
    assert all(len(np.unique(level)) > 5 for level in codes[0])
    assert np.std(mimi_jax.decode(mimi, params, jnp.asarray(codes))) > 1e-3


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_threads_are_limited_for_the_process_and_too_many_are_refused():
    code = (
        "import os; from bench.threads import limit_threads; limit_threads(1); "
        "assert len(os.sched_getaffinity(0)) == 1; limit_threads(2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "got 2 threads, expected 1 to 1, the processors here" in done.stderr
