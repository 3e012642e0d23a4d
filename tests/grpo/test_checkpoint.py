"""Checkpoints: exact restore, onto other devices, newest complete one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo.checkpoint import KEEP, Checkpoints
from grpo.config import OptimizerConfig
from grpo.mesh import make_mesh
from grpo.update import init_train_state, make_optimizer


def train_state(mesh, seed):
    optimizer, _ = make_optimizer(OptimizerConfig(), 10)
    weights = jax.random.normal(jax.random.key(seed), (3, 4))
    params = {"layers": [{"w": weights}, {"w": weights.astype(jnp.bfloat16)}]}
    return mesh.jit(lambda tree: init_train_state(tree, optimizer))(params)


def test_restore_is_exact_and_keeps_the_structure(tmp_path):
    mesh = make_mesh(4)
    state = train_state(mesh, 1)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest is None
        checkpoints.save(3, state, {"next_group": 12}, "{}")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.latest == 3
        restored = checkpoints.restore(train_state(mesh, 2))
    assert (restored.epoch, restored.data) == (3, {"next_group": 12})
    assert jax.tree.structure(restored.state) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored.state, state)


def test_restore_goes_to_the_devices_of_the_template(tmp_path):
    state = train_state(make_mesh(8), 1)
    fewer = make_mesh(2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"next_group": 0}, "{}")
        restored = checkpoints.restore(train_state(fewer, 2)).state
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.device_set == set(fewer.devices)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_only_the_newest_stay(tmp_path):
    state = train_state(make_mesh(1), 1)
    with Checkpoints(tmp_path) as checkpoints:
        for epoch in range(1, KEEP + 3):
            checkpoints.save(epoch, state, {"next_group": epoch}, "{}")
    kept = sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit())
    assert kept == list(range(3, KEEP + 3))


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    state = train_state(make_mesh(1), 1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"next_group": 1}, "{}")
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "2.orbax-checkpoint-tmp" / "state").mkdir()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest == 1


def test_an_empty_folder_is_an_error(tmp_path):
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(FileNotFoundError, match="holds no checkpoint"),
    ):
        checkpoints.restore(train_state(make_mesh(1), 1))
