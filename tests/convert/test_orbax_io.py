import jax
import ml_dtypes
import numpy as np
import pytest

from convert.errors import ConversionError
from convert.orbax_io import restore_tree, save_tree


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
