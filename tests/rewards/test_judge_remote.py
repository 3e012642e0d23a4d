"""The served judge against a real HTTP server that misbehaves."""

import asyncio
import sqlite3
import threading
import time

import pytest

from rewards.judge import Budget, Case, RemoteConfig, RemoteJudge, Turn
from tests.rewards.conftest import completion, response

pytest.importorskip("aiohttp")

QUICK = {"model": "m", "backoff_s": 0.01, "breaker_cooldown_s": 0.05, "patience_s": 0.3}


def case(text="I am fine"):
    return Case((Turn("user", "how are you"),), text)


@pytest.fixture
def judge_of(server):
    opened = []

    def open_judge(*urls, **options):
        opened.append(RemoteJudge(RemoteConfig(urls=urls or (server.url,), **QUICK | options)))
        return opened[-1]

    yield open_judge
    for judge in opened:
        judge.close()


def verdicts(judge, *cases):
    return judge.submit(cases or [case()]).result(timeout_s=20)


def test_a_verdict_and_what_was_asked(server, judge_of):
    (verdict,) = verdicts(judge_of())
    assert (verdict.value, verdict.reason, verdict.raw) == (2, "judged", "2")
    (body,) = server.requests
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 4)
    assert body["structured_outputs"] == {"choice": ["0", "1", "2"]}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "USER: how are you\nREPLY: I am fine" in body["messages"][1]["content"]


def test_options_of_the_call(server, judge_of, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge = judge_of(structured="none", thinking=True, api_key_variable="JUDGE_KEY")
    verdicts(judge)
    assert server.requests[0].keys() == {"model", "messages", "temperature", "max_tokens"}
    assert "Authorization: Bearer secret" in server.headers[0]
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="JUDGE_KEY has no key"):
        judge_of(api_key_variable="JUDGE_KEY")


def test_silence_is_worth_0_without_a_call(server, judge_of):
    (verdict,) = verdicts(judge_of(), case("  "))
    assert (verdict.value, verdict.reason) == (0.0, "silent")
    assert server.requests == []


BROKEN = {
    "429": response(429, b"slow down"),
    "429 with a rest": response(429, b"", ["Retry-After: 0.05"]),
    "500": response(500, b"oops"),
    "503": response(503),
    "garbage": b"\x00\x01 this is no HTTP\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + completion()[:30],
    "nothing": b"",
    "no JSON": response(200, b"<html>2</html>"),
    "no choices": response(200, b'{"choices": []}'),
    "words": response(200, completion("two")),
    "null": response(200, completion(None)),
    "a thought cut off": response(200, completion("<think>2")),
    "several numbers": response(200, completion("1 or 2")),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_is_asked_again(server, judge_of, broken):
    server.behave = lambda body, number: (
        0.0, broken if number < 3 else response(200, completion("1"))
    )  # fmt: skip
    (verdict,) = verdicts(judge_of())
    assert (verdict.value, verdict.reason) == (1, "judged")
    assert len(server.requests) == 3


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_only_broken_answers_are_missing_never_a_number(server, judge_of, broken):
    server.behave = lambda body, number: (0.0, broken)
    (verdict,) = verdicts(judge_of(tries=3, breaker_failures=9))
    assert verdict.value is None
    assert verdict.reason in ("failed", "unparsable")
    assert len(server.requests) == 3


def test_a_call_that_hangs_is_given_up_and_asked_again(server, judge_of):
    server.behave = lambda body, number: (30.0 if number == 1 else 0.0, response(body=completion()))
    (verdict,) = verdicts(judge_of(read_timeout_s=0.2))
    assert (verdict.value, len(server.requests)) == (2, 2)


def test_a_refusal_is_not_asked_again(server, judge_of):
    server.behave = lambda body, number: (0.0, response(400, b"no such model"))
    (verdict,) = verdicts(judge_of())
    assert (verdict.value, verdict.reason) == (None, "refused")
    assert "no such model" in verdict.raw
    assert len(server.requests) == 1


def test_64_calls_run_at_once(server, judge_of):
    """That they take one second together is a consequence; no wall time is asserted."""
    server.behave = lambda body, number: (0.3, response(body=completion()))
    cases = [case(f"reply {number}") for number in range(64)]
    assert [verdict.value for verdict in verdicts(judge_of(), *cases)] == [2] * 64
    assert server.most_at_once == 64


def test_no_more_calls_at_once_than_asked_for(server, judge_of):
    server.behave = lambda body, number: (0.02, response(body=completion()))
    verdicts(judge_of(concurrency=3), *(case(f"reply {number}") for number in range(12)))
    assert server.most_at_once == 3


def test_submit_does_not_wait(server, judge_of):
    gate = threading.Event()

    def behave(body, number):
        return (0.0 if gate.is_set() else 30.0), response(body=completion())

    server.behave = behave
    handle = judge_of(read_timeout_s=0.2).submit([case()])
    assert not handle.done()
    gate.set()
    assert handle.result()[0].value == 2
    assert handle.done()


def test_a_late_verdict_is_missing_and_still_cached(server, judge_of):
    server.behave = lambda body, number: (0.3, response(body=completion()))
    judge = judge_of()
    (verdict,) = judge.submit([case()]).result(timeout_s=0.05)
    assert (verdict.value, verdict.reason) == (None, "not judged in time")
    assert verdicts(judge)[0].value == 2
    assert len(server.requests) == 1


def test_equal_cases_share_a_call_and_the_cache_outlives_the_process(server, judge_of, tmp_path):
    cache = tmp_path / "cache" / "judge.sqlite"
    server.behave = lambda body, number: (0.1, response(body=completion("1")))
    judge = judge_of(cache=cache)
    assert [v.value for v in verdicts(judge, case(), case(), case())] == [1, 1, 1]
    assert len(server.requests) == 1
    judge.close()
    again = judge_of(cache=cache)
    (verdict,) = verdicts(again)
    assert (verdict.value, verdict.reason, verdict.raw) == (1, "cached", "1")
    assert len(server.requests) == 1
    assert (again.usage.calls, again.usage.tokens) == (1, 10)
    verdicts(judge_of(cache=cache, model="other"))
    assert len(server.requests) == 2


def test_raw_answers_are_kept_also_those_that_were_no_verdict(server, judge_of, tmp_path):
    server.behave = lambda body, number: (
        0.0, response(200, completion("two" if number == 1 else "0"))
    )  # fmt: skip
    verdicts(judge_of(cache=tmp_path / "judge.sqlite"))
    with sqlite3.connect(tmp_path / "judge.sqlite") as database:
        rows = database.execute("SELECT raw, value, judge, endpoint FROM answers").fetchall()
    database.close()
    assert rows == [("two", None, "remote:m", server.url), ("0", 0.0, "remote:m", server.url)]


def test_soft_verdicts(server, judge_of):
    logprobs = {"2": -0.6931471805599453, "1": -1.3862943611198906, "x": -1.3862943611198906}
    server.behave = lambda body, number: (0.0, response(200, completion("2", logprobs)))
    (verdict,) = verdicts(judge_of(soft=True))
    assert verdict.value == pytest.approx((0.5 * 2 + 0.25 * 1) / 0.75)
    assert (server.requests[0]["logprobs"], server.requests[0]["top_logprobs"]) == (True, 20)


@pytest.mark.parametrize("logprobs", [None, {"2": -2.0}, {"x": 0.0}, {"2": 3.0}, {"2": "a"}])
def test_a_soft_verdict_without_probabilities_is_missing(server, judge_of, logprobs):
    server.behave = lambda body, number: (0.0, response(200, completion("2", logprobs)))
    assert verdicts(judge_of(soft=True, tries=2))[0].value is None


def test_budgets_end_calls(server, judge_of):
    judge = judge_of(budget=Budget(max_calls=2), concurrency=1)
    cases = [case(f"reply {number}") for number in range(4)]
    assert [v.reason for v in verdicts(judge, *cases)] == ["judged"] * 2 + ["over budget"] * 2
    assert (judge.exhausted, judge.available(), len(server.requests)) == (True, False, 2)
    judge = judge_of(budget=Budget(max_tokens=25), concurrency=1)
    assert [v.value for v in verdicts(judge, *cases)] == [2, 2, 2, None]


def test_calls_go_round_and_avoid_an_endpoint_that_is_away(server, judge_of):
    away = "http://127.0.0.1:9/v1"  # nobody listens there
    judge = judge_of(away, server.url, breaker_failures=2, breaker_cooldown_s=60.0)
    for number in range(8):
        assert verdicts(judge, case(f"reply {number}"))[0].value == 2
    assert judge.usage.calls == 10  # two of them to the one that is away
    assert judge.available()


def test_an_outage_under_block_loses_nothing(server, judge_of):
    judge = judge_of(outage="block", tries=2)
    server.behave = lambda body, number: (0.02, response(body=completion()))
    server.shut()
    cases = [case(f"reply {number}") for number in range(64)]
    handle = judge.submit(cases)
    time.sleep(0.6)  # many cooldowns: with only two tries each would be lost
    assert not handle.done()
    server.open()
    assert [verdict.value for verdict in handle.result(timeout_s=20)] == [2] * 64


def test_an_outage_under_defer_is_missing_and_seen_to_end(server, judge_of):
    judge = judge_of(outage="defer", tries=50)
    server.shut()
    (verdict,) = verdicts(judge)
    assert (verdict.value, verdict.reason) == (None, "outage")
    assert not judge.available()
    server.open()
    assert judge.available()
    assert verdicts(judge)[0].value == 2


def test_a_case_that_breaks_a_healthy_server_does_not_block_for_ever(server, judge_of):
    def behave(body, number):
        poison = "poison" in body["messages"][1]["content"]
        return 0.0, response(500) if poison else response(body=completion())

    server.behave = behave
    judge = judge_of(outage="block", tries=3, breaker_failures=9)
    bad, good = verdicts(judge, case("poison"), case("fine"))
    assert (bad.value, good.value) == (None, 2)


def test_the_request_rate_is_kept(server, judge_of):
    judge = judge_of(requests_per_minute=1200.0)
    waited = []

    async def sleep(seconds):
        waited.append(seconds)
        judge._requests._level += seconds * 20

    judge._requests._sleep = sleep
    judge._requests._level = 0.0
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), judge._loop).result()
    assert verdicts(judge)[0].value == 2
    assert waited and sum(waited) == pytest.approx(0.05, abs=0.05)


def test_close_ends_what_is_on_its_way(server, judge_of):
    server.behave = lambda body, number: (30.0, response(body=completion()))
    judge = judge_of()
    handle = judge.submit([case()])
    judge.close()
    assert handle.result(timeout_s=5)[0].value is None
    judge.close()
