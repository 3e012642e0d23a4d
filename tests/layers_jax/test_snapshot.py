import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from layers_jax.snapshot import load_tree, read_note, save_tree

OWNER = {"batch": 2, "delays": (0, 1)}


def tree(fill=1.0):
    return {
        "rings": [jnp.full((2, 3), fill, jnp.bfloat16), jnp.arange(4)],
        "flag": jnp.array([True, False]),
    }


def test_a_tree_comes_back_bit_for_bit_with_its_note(tmp_path):
    path = tmp_path / "deep" / "state"
    save_tree(path, tree(), OWNER, {"calls": 7})
    got = load_tree(path, tree(0.0), OWNER)
    assert got["rings"][0].dtype == ml_dtypes.bfloat16 and (got["rings"][0] == 1).all()
    assert got["rings"][1].tolist() == [0, 1, 2, 3] and got["flag"].tolist() == [True, False]
    assert read_note(path) == {"calls": 7}
    assert [p.name for p in path.parent.iterdir()] == ["state"], "nothing temporary is left"


def test_what_belongs_to_another_session_is_refused_by_what_differs(tmp_path):
    path = tmp_path / "state"
    save_tree(path, tree(), OWNER, {})
    with pytest.raises(ValueError, match=r"was saved with batch 2 instead of 3; load the checkp"):
        load_tree(path, tree(), {**OWNER, "batch": 3})
    with pytest.raises(ValueError, match=r"has int32\[4\] for rings\.1, expected int32\[5\]"):
        load_tree(path, {**tree(), "rings": [tree()["rings"][0], jnp.arange(5)]}, OWNER)
    with pytest.raises(ValueError, match=r"has nothing for other, expected"):
        load_tree(path, {**tree(), "other": jnp.zeros(1)}, OWNER)


def test_files_that_are_no_snapshots_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: got no file there"):
        read_note(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match=r"text is not a saved state"):
        read_note(tmp_path / "text")
    save_file({"x": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"other has format None, expected 'moshi-jax snapshot 1'"):
        load_tree(tmp_path / "other", tree(), OWNER)
