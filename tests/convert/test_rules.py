import numpy as np
import pytest

from convert.errors import ConversionError
from convert.rules import Derived, Rule, flatten, plan
from convert.safetensors_io import TensorInfo

RULES = [
    # One PyTorch tensor holds the rows of every s; also known step by step.
    Rule("att.{l}.in", "l.{l}.s.{s}.w", "matrix", {"l": 2, "s": 3}, also=("att.{l}.in.{s}",)),
    # One leaf holds the rows of every k.
    Rule("emb.{k}", "table", "same", {"k": 4}),
    Derived("mean", ("table",), lambda table: table.mean(0), {}),
]
LEAVES = {
    **{f"l.{layer}.s.{step}.w": (5, 2) for layer in range(2) for step in range(3)},
    "table": (12, 7),
    "mean": (7,),
}
RELEASED = {"att.0.in": (6, 5), "att.1.in": (6, 5), **{f"emb.{k}": (3, 7) for k in range(4)}}
SPLIT = {
    **{f"att.{layer}.in.{step}": (2, 5) for layer in range(2) for step in range(3)},
    **{f"emb.{k}": (3, 7) for k in range(4)},
}


def stored(shapes, fmt="BF16"):
    return {key: TensorInfo(shape, fmt) for key, shape in shapes.items()}


def test_shapes_of_the_file_follow_from_ours():
    made = plan(RULES, LEAVES)
    assert made.tensor_shapes == RELEASED
    assert set(made.leaves) | set(made.derived) == set(LEAVES)
    assert [link.key_part for link in made.tensors["att.0.in"]] == [(0, 3), (1, 3), (2, 3)]
    assert [link.path_part for link in made.leaves["table"]] == [(k, 4) for k in range(4)]


def test_the_names_in_the_file_decide():
    assert plan(RULES, LEAVES, stored(RELEASED)).tensor_shapes == RELEASED
    assert plan(RULES, LEAVES, stored(SPLIT)).tensor_shapes == SPLIT


def test_a_tensor_under_two_names_is_refused():
    with pytest.raises(ConversionError, match=r"unexpected att\.\{0-1\}\.in\.\{0-2\};"):
        plan(RULES, LEAVES, stored({**SPLIT, **RELEASED}))


def test_every_problem_is_in_one_error():
    shapes = {**RELEASED, "att.1.in": (5, 6), "emb.0": (3, 8), "stray": (1,)}
    del shapes["emb.3"]
    tensors = {**stored(shapes), "emb.1": TensorInfo((3, 7), "I8")}
    with pytest.raises(ConversionError) as caught:
        plan(RULES, LEAVES, tensors, subject="model.safetensors")
    assert caught.value.problems == (
        "missing emb.3",
        "unexpected stray",
        "wrong shape: att.1.in got [5, 6], expected [6, 5] (transposed)",
        "wrong shape: emb.0 got [3, 8], expected [3, 7]",
        "wrong dtype: emb.1 got I8, expected one of F32, BF16, F16",
        "check that config.json describes this file",
    )
    assert str(caught.value).startswith("model.safetensors: missing emb.3; ")
    assert "\n" not in str(caught.value)


def test_missing_tensors_are_named_as_the_file_names_its_others():
    shapes = {key: shape for key, shape in SPLIT.items() if key != "att.1.in.2"}
    with pytest.raises(ConversionError) as caught:
        plan(RULES, LEAVES, stored(shapes))
    assert caught.value.problems[0] == "missing att.1.in.2"
    with pytest.raises(ConversionError) as caught:
        plan(RULES, LEAVES, {})
    assert caught.value.problems[0] == "missing att.{0-1}.in, emb.{0-3}"


@pytest.mark.parametrize(
    ("rules", "leaves", "message"),
    [
        (RULES[1:], LEAVES, r"no rule for l\.\{0-1\}\.s\.\{0-2\}\.w"),
        (RULES, {k: v for k, v in LEAVES.items() if k != "mean"}, "no leaf for mean"),
        ([*RULES, Rule("other", "table")], LEAVES, "two rules for table"),
        ([*RULES, Rule("other", "mean")], LEAVES, "two rules for mean"),
        (RULES, {**LEAVES, "table": (13, 7)}, "does not split into 4 blocks"),
        (RULES, {**LEAVES, "l.0.s.1.w": (5, 3)}, "row blocks of several shapes"),
        ([Rule("x", "a.{i}.{j}", "same", {"i": 1, "j": 1})], {"a.0.0": (1,)}, "several indices"),
    ],
)
def test_a_table_that_does_not_fit_the_model_is_a_defect(rules, leaves, message):
    with pytest.raises(ValueError, match=message) as caught:
        plan(rules, leaves)
    assert not isinstance(caught.value, ConversionError)


def test_paths_are_dotted_with_lists_by_index():
    tree = {"b": [np.zeros(1), {"c": np.zeros(2)}], "a": np.zeros(3)}
    assert {path: leaf.size for path, leaf in flatten(tree).items()} == {
        "a": 3,
        "b.0": 1,
        "b.1.c": 2,
    }
