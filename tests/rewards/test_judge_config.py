import pytest

from rewards.judge import JudgeConfig, RemoteConfig, RemoteJudge, open_judge

URL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"urls": ("localhost:8000",)}, "'localhost:8000', expected http:// or https://"),
        ({"tries": 0}, "tries is 0, expected 1 or more"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"patience_s": -1.0}, "patience_s is -1.0"),
    ],
)
def test_impossible_judges_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RemoteConfig(**{"urls": (URL,), "model": "m"} | options)


def test_no_judge_unless_one_is_named():
    assert open_judge(JudgeConfig()) is None
    with pytest.raises(ValueError, match=r"kind is 'none' and remote.urls is .*, expected no URLs"):
        JudgeConfig(remote=RemoteConfig(urls=(URL,), model="m"))
    with pytest.raises(ValueError, match=r"expected at least one remote.urls and remote.model"):
        JudgeConfig(kind="remote", remote=RemoteConfig(urls=(URL,)))
    with pytest.raises(ValueError, match=r"expected at least one URL and the name of a model"):
        RemoteJudge(RemoteConfig(model="m"))


def test_the_named_judge_is_opened():
    pytest.importorskip("aiohttp")
    judge = open_judge(JudgeConfig(kind="remote", remote=RemoteConfig(urls=(URL,), model="m")))
    assert judge is not None
    assert judge.name == "remote:m"
    judge.close()
