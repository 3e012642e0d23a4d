"""The folder an extraction works in."""

import pytest

from grpo.partial import digest, finish, partial_folder


def test_work_goes_on_and_becomes_the_result(tmp_path):
    target = tmp_path / "deep" / "out"
    with pytest.raises(OSError, match="disk full"), partial_folder(target, {"a": 1}) as folder:
        (folder / "half").write_text("done")
        (folder / ".notes").write_text("working file")
        raise OSError("disk full")
    assert not target.exists()
    with partial_folder(target, {"a": 1}) as folder:
        assert (folder / "half").read_text() == "done"
        finish(folder, target)
    assert [path.name for path in target.iterdir()] == ["half"]
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_other_settings_do_not_go_on(tmp_path):
    with partial_folder(tmp_path / "out", {"a": 1}):
        pass
    with (
        pytest.raises(ValueError, match="got a run begun with other settings"),
        partial_folder(tmp_path / "out", {"a": 2}),
    ):
        pytest.fail("not reached")


def test_two_processes_do_not_share_it(tmp_path):
    with (
        partial_folder(tmp_path / "out", 1),
        pytest.raises(ValueError, match="got another process at work"),
        partial_folder(tmp_path / "out", 1),
    ):
        pytest.fail("not reached")


def test_a_result_is_never_overwritten(tmp_path):
    (tmp_path / "empty").mkdir()
    with partial_folder(tmp_path / "empty", 1) as folder:
        (folder / "new").write_text("")
        finish(folder, tmp_path / "empty")
    with (
        pytest.raises(ValueError, match="got something there already"),
        partial_folder(tmp_path / "empty", 1),
    ):
        pytest.fail("not reached")


def test_digest_depends_on_values_not_on_their_order():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
