import builtins
import json
import subprocess
import sys

import numpy as np
import pytest

from helium_jax import Sampling
from layers_jax import Precision
from moshi_jax.export import export_step, main
from moshi_jax.loading import load

# Imports of anything that knows the model fail: the step must be in the file.
ALONE = """
import sys
for name in ("layers_jax", "mimi_jax", "helium_jax", "convert", "grpo", "bench", "moshi_jax",
             "flax", "safetensors", "optax", "orbax"):
    sys.modules[name] = None
import runpy
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tmp_path_factory):
    made = tmp_path_factory.mktemp("export") / "step"
    return export_step(tiny_checkpoint, made, precision=Precision.f32(), sampling=Sampling.greedy())


def test_a_fresh_process_without_the_models_code_gives_the_references_tokens(
    folder, golden, tmp_path
):
    _, recorded, _ = golden("checkpoint_moshi_tiny_e2e")
    np.save(tmp_path / "in.npy", recorded["inputs/pcm"][:, None])
    code = [sys.executable, "-I", "-c", ALONE, folder / "run.py", folder]
    done = subprocess.run(
        [*map(str, code), tmp_path / "in.npy", tmp_path / "out.npz"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    out = np.load(tmp_path / "out.npz")
    valid = recorded["expected/valid"]
    np.testing.assert_array_equal(out["valid"][:, 0], valid)
    tokens = np.concatenate([out["text"][:, 0, None], out["codes"][:, 0]], axis=1)
    np.testing.assert_array_equal(tokens[valid], recorded["expected/out"][valid])
    np.testing.assert_allclose(out["pcm"][:, 0], recorded["expected/pcm"], atol=1e-5)


@pytest.mark.slow
def test_the_state_is_donated_and_the_folder_says_what_it_is(folder, tiny_checkpoint):
    from moshi_jax.exported import ExportedSession

    session = ExportedSession(folder)
    before = list(session._state)
    session.step(np.zeros((1, session.about["frame_samples"]), np.float32))
    large = [leaf for leaf in before if leaf.size > 100]
    assert large and all(leaf.is_deleted() for leaf in large)
    about = json.loads((folder / "export.json").read_text())
    assert (about["batch"], about["platforms"], about["delay_frames"]) == (1, ["cpu"], 1)
    with pytest.raises(ValueError, match=r"a frame has shape \(1, 3\), expected \(1, "):
        session.step(np.zeros((1, 3), np.float32))


@pytest.mark.slow
def test_sampled_batches_with_masks_and_resets_are_those_of_a_session(tiny_checkpoint, tmp_path):
    """bf16 parameters, the release's own sampling, two rows with clocks of their own."""
    from moshi_jax.exported import ExportedSession

    made = export_step(tiny_checkpoint, tmp_path / "two", batch=2, platforms=("cpu", "tpu"))
    session, ours = ExportedSession(made, seed=5), load(tiny_checkpoint, batch=2, seed=5)
    rng = np.random.default_rng(0)
    for frame in range(12):
        pcm = rng.standard_normal((2, ours.frame_samples)).astype(np.float32)
        mask = rng.random(2) < 0.7
        if frame == 6:
            session.reset(np.array([True, False]))
            ours.reset(np.array([True, False]))
        got, expected = session.step(pcm, mask), ours.step(pcm, mask)
        for name in ("valid", "text", "codes", "pcm"):
            np.testing.assert_array_equal(got[name], getattr(expected, name))


def test_a_missing_serialiser_is_named_before_any_work(monkeypatch, tmp_path):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "flatbuffers":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ValueError, match=r"needs flatbuffers.*pip install 'moshi-jax\[export\]'"):
        export_step(tmp_path / "none", tmp_path / "out")


def test_bad_input_is_refused_and_leaves_nothing(tiny_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="batch is 0, expected at least 1"):
        export_step(tiny_checkpoint, tmp_path / "out", batch=0)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(FileExistsError, match="expected a new or an empty folder"):
        main([str(tiny_checkpoint), str(tmp_path / "used")])
    assert not (tmp_path / "out").exists()


def test_a_folder_for_other_hardware_says_so(folder, tmp_path):
    from moshi_jax.exported import ExportedSession

    about = json.loads((folder / "export.json").read_text())
    (tmp_path / "export.json").write_text(json.dumps({**about, "platforms": ["tpu"]}))
    with pytest.raises(ValueError, match=r"exported for \['tpu'\], this machine has cpu"):
        ExportedSession(tmp_path)
