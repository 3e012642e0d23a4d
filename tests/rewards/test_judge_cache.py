import pytest

from rewards.judge.cache import AnswerCache, cache_key
from rewards.judge.limits import Usage


def add(cache, key, raw, value):
    cache.add(key, judge="j", endpoint="e", raw=raw, value=value)


def test_only_verdicts_are_found_and_they_outlive_the_process(tmp_path):
    path = tmp_path / "deep" / "judge.sqlite"
    cache = AnswerCache(path)
    add(cache, "a", "two", None)
    assert cache.get("a") is None
    add(cache, "a", "2", 2.0)
    cache.set_usage(Usage(2, 30))
    cache.close()
    cache = AnswerCache(path)
    found = cache.get("a")
    assert (found.value, found.reason, found.raw) == (2.0, "cached", "2")
    assert cache.get("b") is None
    assert cache.usage() == Usage(2, 30)
    cache.close()


def test_a_verdict_of_0_is_a_verdict():
    cache = AnswerCache(None)
    add(cache, "a", "0", 0.0)
    assert cache.get("a").value == 0.0
    assert cache.usage() == Usage()
    cache.close()


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "judge.sqlite"
    path.write_text("something else, long enough to be looked at" * 40)
    with pytest.raises(ValueError, match=r"judge.sqlite: file is not a database; give another"):
        AnswerCache(path)


def test_keys_depend_on_every_part():
    keys = {
        cache_key(prompt="1", body={"a": 1, "b": 2}),
        cache_key(prompt="2", body={"a": 1, "b": 2}),
        cache_key(prompt="1", body={"a": 1, "b": 3}),
    }
    assert len(keys) == 3
    assert cache_key(prompt="1", body={"b": 2, "a": 1}) in keys
