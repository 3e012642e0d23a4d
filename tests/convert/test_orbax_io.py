import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest

from convert import orbax_io
from convert.errors import ConversionError
from convert.orbax_io import StoredLeaves, restore_tree, save_tree


def test_a_tree_comes_back_as_it_was_saved(tmp_path):
    tree = {
        "layers": [{"w": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3)} for _ in range(11)],
        "scale": np.array([1.5], np.float32),
    }
    save_tree(tmp_path / "x", tree)
    back = restore_tree(tmp_path / "x")
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    assert jax.tree.map(lambda leaf: leaf.dtype, back) == jax.tree.map(lambda x: x.dtype, tree)


def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path):
    save_tree(tmp_path / "x", {"w": np.random.default_rng(0).normal(size=(300, 300))})
    largest = max((tmp_path / "x").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    with pytest.raises(ConversionError, match="expected an orbax checkpoint") as caught:
        restore_tree(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_checkpoint_is_refused(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "file":
        path.touch()
    elif kind == "empty":
        path.mkdir()
    with pytest.raises(ConversionError, match="expected an orbax checkpoint"):
        restore_tree(path)


TREE = {
    "layers": [{"w": np.arange(i, i + 512, dtype=np.float32).reshape(16, 32)} for i in range(12)],
    "scale": np.array([1.5, 2.5], ml_dtypes.bfloat16),
}


@pytest.fixture
def in_groups(tmp_path, monkeypatch):
    """TREE on disk, written in groups of two or three of its leaves."""
    monkeypatch.setattr(orbax_io, "GROUP_BYTES", 5000)
    save_tree(tmp_path / "x", TREE)
    return tmp_path / "x"


def test_groups_join_to_the_same_tree(in_groups):
    back = restore_tree(in_groups)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)


def test_leaves_are_read_in_groups_in_the_order_that_was_said(in_groups, monkeypatch):
    order = [f"layers.{i}.w" for i in reversed(range(12))]
    leaves = StoredLeaves(in_groups, order)
    assert set(leaves) == {"scale", *order} and len(leaves) == 13
    loads = []
    load = orbax_io._load
    monkeypatch.setattr(orbax_io, "_load", lambda *a: (loads.append(1), load(*a))[1])
    for i, name in enumerate(order):
        np.testing.assert_array_equal(leaves[name], TREE["layers"][11 - i]["w"])
        assert leaves[name].dtype == np.float32
        assert len(loads) == i // 2 + 1
        assert len(leaves._loaded) <= 3  # the small one keeps the last group company


@pytest.mark.parametrize("devices", [2, 8])
def test_a_checkpoint_is_restored_straight_onto_a_mesh(devices, in_groups):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("model",))

    def sharded(leaf):
        axes = jax.P("model") if leaf.ndim == 2 else jax.P()
        sharding = jax.sharding.NamedSharding(mesh, axes)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    back = restore_tree(in_groups, jax.tree.map(sharded, TREE))
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    pieces = back["layers"][7]["w"].addressable_shards
    assert {piece.data.shape for piece in pieces} == {(16 // devices, 32)}
    assert {piece.device for piece in pieces} == set(jax.devices()[:devices])


def test_another_tree_is_refused(in_groups):
    with pytest.raises(ConversionError, match="expected an orbax checkpoint"):
        restore_tree(in_groups, {"other": jax.ShapeDtypeStruct((2,), np.float32)})


def test_little_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """Memory follows the size of a group, not that of the tree."""
    monkeypatch.setattr(orbax_io, "GROUP_BYTES", 1 << 19)
    key = jax.tree_util.SequenceKey
    made = 16

    def leaves():
        for i in range(made):
            yield (key(i),), np.full((128, 1024), i, np.float32)  # half a MiB, 8 in all

    tracemalloc.start()
    orbax_io.save_leaves(tmp_path / "x", leaves())
    stored = StoredLeaves(tmp_path / "x")
    for i in range(made):
        assert stored[str(i)][3, 3] == i
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
