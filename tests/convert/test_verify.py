import numpy as np
import pytest

from convert import Difference, compare, to_jax


def test_a_checkpoint_equals_itself_in_either_form(tiny_checkpoint, tmp_path):
    to_jax(tiny_checkpoint, tmp_path / "jax")
    for other in (tiny_checkpoint, tmp_path / "jax"):
        result = compare(tiny_checkpoint, other)
        assert result.differences == [] and result.num_tensors == 95 + 150


def test_one_changed_bit_is_found(tiny_checkpoint, tiny_weights, checkpoint_with):
    changed = {key: value.copy() for key, value in tiny_weights.items()}
    changed["linears.3.weight"][2, 5] += 0.5
    changed["out_norm.alpha"].reshape(-1)[0] = -0.0
    tiny_zero = {**tiny_weights, "out_norm.alpha": tiny_weights["out_norm.alpha"].copy()}
    tiny_zero["out_norm.alpha"].reshape(-1)[0] = 0.0
    a, b = checkpoint_with(tiny_zero, "a"), checkpoint_with(changed, "b")
    assert compare(a, b).differences == [
        Difference(
            name="moshi linears.3.weight", what="values", detail="1 of 8192 values", max_abs=0.5
        ),
        Difference(name="moshi out_norm.alpha", what="values", detail="1 of 64 values", max_abs=0),
    ]


def test_files_are_compared_as_they_are(tiny_weights, checkpoint_with):
    other = {key: value for key, value in tiny_weights.items() if key != "emb.0.weight"}
    other["extra"] = np.zeros(2, np.float32)
    other["emb.1.weight"] = other["emb.1.weight"].T
    other["emb.2.weight"] = other["emb.2.weight"].astype(np.float32) + 1
    a = checkpoint_with(tiny_weights, "a") / "model.safetensors"
    b = checkpoint_with(other, "b") / "model.safetensors"
    found = {d.name: (d.what, d.detail, d.max_abs) for d in compare(a, b).differences}
    assert found == {
        "emb.0.weight": ("only in A", "", None),
        "extra": ("only in B", "", None),
        "emb.1.weight": ("shape", "[257, 64] and [64, 257]", None),
        "emb.2.weight": ("dtype", "BF16 and F32", 1.0),
    }


def test_only_like_is_compared_with_like(tiny_checkpoint, tmp_path):
    with pytest.raises(ValueError, match="got a file and a folder"):
        compare(tiny_checkpoint, tiny_checkpoint / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="got nothing there"):
        compare(tiny_checkpoint, tmp_path / "gone")
