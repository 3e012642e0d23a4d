"""Checkpoints: exact restore, onto other devices, newest sound one, a disk that is full."""

import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.checkpoint import KEEP, CheckpointError, Checkpoints, fingerprint
from grpo.config import OptimizerConfig
from grpo.layout import make_layout
from grpo.mesh import make_mesh
from grpo.update import init_train_state, make_optimizer, state_specs


def train_state(mesh, seed):
    optimizer, _ = make_optimizer(OptimizerConfig(), 10)
    weights = jax.random.normal(jax.random.key(seed), (8, 16))
    params = {"layers": [{"w": weights}, {"w": weights[0].astype(jnp.bfloat16)}]}
    specs = state_specs(make_layout(params, mesh), params, optimizer)
    return mesh.jit(lambda tree: init_train_state(tree, optimizer), specs)(params)


def test_restore_is_exact_and_keeps_the_structure(tmp_path):
    mesh = make_mesh(4)
    state = train_state(mesh, 1)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(3, state, {"epoch": 1}, {"order": np.arange(5)})
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest == 3
        restored = checkpoints.restore(train_state(mesh, 2))
    assert (restored.step, restored.progress) == (3, {"epoch": 1})
    np.testing.assert_array_equal(restored.arrays["order"], np.arange(5))
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.state, state)


def test_restore_goes_to_the_devices_of_the_template_and_back(tmp_path):
    """Eight devices in blocks, two replicas, eight in other blocks: the same bits."""
    meshes = [
        make_mesh(8, mapping="shard_map", shape=(4, 2)),
        make_mesh(2),
        make_mesh(8, mapping="shard_map", shape=(2, 2, 2)),
    ]
    first = state = train_state(meshes[0], 1)
    assert fingerprint(state) != fingerprint(train_state(meshes[0], 2))
    for step, mesh in enumerate(meshes):
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(step, state, {})
            state = checkpoints.restore(train_state(mesh, 2)).state
        for leaf in jax.tree.leaves(state):
            assert leaf.sharding.device_set == set(mesh.devices)
        jax.tree.map(np.testing.assert_array_equal, state, first)
        assert fingerprint(state) == fingerprint(first)


def test_only_the_newest_stay(tmp_path):
    state = train_state(make_mesh(1), 1)
    with Checkpoints(tmp_path) as checkpoints:
        for epoch in range(1, KEEP + 3):
            checkpoints.save(epoch, state, {})
    kept = sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert kept == list(range(3, KEEP + 3))


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    state = train_state(make_mesh(1), 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "2.orbax-checkpoint-tmp" / "state").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 1


def test_an_empty_folder_has_nothing(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(train_state(make_mesh(1), 1)) is None


def largest(folder):
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip(folder):
    """One bit of the data."""
    path = largest(folder)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a bit": flip,
    "the end of a file": lambda folder: largest(folder).write_bytes(b"short"),
    "a file": lambda folder: largest(folder).unlink(),
    "everything": lambda folder: [p.unlink() for p in folder.rglob("*") if p.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_and_named(damage, tmp_path, caplog):
    mesh = make_mesh(1)
    good, newer = train_state(mesh, 1), train_state(mesh, 2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, good, {"epoch": 1})
        checkpoints.save(2, newer, {"epoch": 2})
    DAMAGE[damage](tmp_path / "2")
    with caplog.at_level(logging.WARNING), Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(newer)
    assert (restored.step, restored.progress) == (1, {"epoch": 1})
    jax.tree.map(np.testing.assert_array_equal, restored.state, good)
    assert f"skipping checkpoint {tmp_path / '2'}" in caplog.text or damage == "everything"


def test_a_failed_write_says_what_is_left(tmp_path, monkeypatch):
    state = train_state(make_mesh(1), 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})

        def full(*arguments, **options):
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nmore")

        monkeypatch.setattr(checkpoints._checkpointer, "save_checkpointables", full)
        last = re.escape(str(tmp_path / "1"))
        with pytest.raises(CheckpointError, match=rf"No space left on device; the last .*{last};"):
            checkpoints.save(2, state, {})
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(state).step == 1
