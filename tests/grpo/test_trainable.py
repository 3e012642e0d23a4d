"""What the text objective trains, and what weight decay leaves alone."""

import jax
import pytest

from grpo.trainable import TRAINABLE, decays, merge, partition

TREE = {
    "audio_embedding": {"table": 1},
    "text_embedding": {"table": 2},
    "temporal": {"layers": [{"norm1": {"scale": 3}, "mlp": {"down": 4}}]},
    "out_norm": {"scale": 5},
    "text_head": {"kernel": 6},
    "depth": {"heads": [{"kernel": 7}]},
}


def test_partition_and_merge_are_inverse():
    trainable, frozen = partition(TREE)
    assert set(trainable) == set(TRAINABLE)
    assert set(frozen) == {"depth"}
    assert merge(trainable, frozen) == TREE


def test_a_tree_that_is_not_moshi_is_refused():
    with pytest.raises(ValueError, match="lack out_norm"):
        partition({name: value for name, value in TREE.items() if name != "out_norm"})


def test_norm_scales_do_not_decay():
    flat = dict(jax.tree_util.tree_leaves_with_path(decays(TREE)))
    kept = {jax.tree_util.keystr(path) for path, decay in flat.items() if not decay}
    assert kept == {"['temporal']['layers'][0]['norm1']['scale']", "['out_norm']['scale']"}


def test_lists_are_split_leaf_by_leaf_and_keep_their_places():
    heads = [{"kernel": 7, "lora_a": 8}, {"kernel": 9}]
    tree = {**TREE, "depth": {"heads": heads}}
    trainable, frozen = partition(tree, lambda path: path[-1] == "lora_a", tuple(tree))
    assert trainable == {"depth": {"heads": [{"lora_a": 8}, {}]}}
    assert frozen["depth"] == {"heads": [{"kernel": 7}, {"kernel": 9}]}
    assert merge(trainable, frozen) == tree
