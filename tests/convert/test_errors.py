from convert.errors import ConversionError, describe, fold_names


def test_names_fold_only_when_the_short_form_says_the_same():
    grid = [f"layers.{i}.gating.{j}.weight" for i in range(3) for j in range(2)]
    assert fold_names(grid) == ["layers.{0-2}.gating.{0-1}.weight"]
    assert fold_names(grid[1:]) == [f"layers.{i}.gating.{j}.weight" for i, j in
                                    [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]]  # fmt: skip
    assert fold_names(["emb.1.weight", "emb.10.weight"]) == ["emb.{1,10}.weight"]
    assert fold_names(["out_norm.alpha", "layers.0.norm1.alpha"]) == [
        "out_norm.alpha",
        "layers.0.norm1.alpha",
    ]


def test_digits_inside_a_word_are_not_an_index():
    assert fold_names(["l.0.norm1.alpha", "l.0.norm2.alpha"]) == [
        "l.0.norm1.alpha",
        "l.0.norm2.alpha",
    ]


def test_problems_with_one_cause_are_one_problem():
    found = [("a.0.w", " got 1"), ("b.w", " got 2"), ("a.1.w", " got 1")]
    assert describe("shape:", found) == ["shape: a.{0-1}.w got 1", "shape: b.w got 2"]


def test_the_message_is_one_line_with_every_problem():
    error = ConversionError(["missing a", "unexpected b"], subject="file")
    assert str(error) == "file: missing a; unexpected b"
    assert error.problems == ("missing a", "unexpected b")
    assert isinstance(error, ValueError)
