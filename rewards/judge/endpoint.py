"""One call to an OpenAI-compatible endpoint, and what its answer means.

Works with vLLM, SGLang and what else serves `/v1/chat/completions`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rewards.judge.parse import SCALE, parse_verdict

MIN_MASS = 0.5
"""Least probability of 0, 1 and 2 together for the expected value to be one."""


@dataclass(frozen=True)
class Answer:
    """What came back from one call.

    Attributes:
        kind: "verdict"; "unparsable", an answer without verdict (asking again may help);
            "failed", the endpoint could not (asking again, or another one, may help);
            "refused", the call itself is wrong (asking again will not help).
        value: of a verdict.
        raw: what the judge wrote, or what went wrong.
        tokens: used by the call.
        retry_after_s: how long the endpoint wants to be left alone.
    """

    kind: Literal["verdict", "unparsable", "failed", "refused"]
    value: float | None = None
    raw: str = ""
    tokens: int = 0
    retry_after_s: float | None = None


def payload(
    model: str,
    messages: list[dict[str, str]],
    *,
    structured: Literal["choice", "none"],
    soft: bool,
    thinking: bool,
    max_tokens: int,
) -> dict[str, Any]:
    """The body of a call: greedy, short, and held to the three answers where the server can."""
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    if structured == "choice":
        body["structured_outputs"] = {"choice": [str(verdict) for verdict in SCALE]}
    if not thinking:
        body["chat_template_kwargs"] = {"enable_thinking": False}
    if soft:
        body |= {"logprobs": True, "top_logprobs": 20}
    return body


def read_answer(status: int, headers: Mapping[str, str], body: bytes, *, soft: bool) -> Answer:
    """What an HTTP response says.

    Args:
        status: of the response.
        headers: of the response.
        body: of the response, whole.
        soft: the value is the expected verdict under the probabilities of the first token that
            is one, not the verdict written.
    """
    text = body.decode("utf-8", "replace")
    if status == 429 or status == 408 or status >= 500:
        return Answer("failed", raw=f"{status}: {text[:200]}", retry_after_s=_seconds(headers))
    if status != 200:
        return Answer("refused", raw=f"{status}: {text[:200]}")
    try:
        content = json.loads(text)
        choice = content["choices"][0]
        written = choice["message"]["content"]
        tokens = int((content.get("usage") or {}).get("total_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        return Answer("failed", raw=f"no answer in {text[:200]!r}: {type(error).__name__}")
    if not isinstance(written, str):
        return Answer("unparsable", raw=json.dumps(written), tokens=tokens)
    value: float | None = parse_verdict(written)
    if value is not None and soft:
        value = _expected(choice)
    if value is None:
        return Answer("unparsable", raw=written, tokens=tokens)
    return Answer("verdict", value=value, raw=written, tokens=tokens)


def _expected(choice: Mapping[str, Any]) -> float | None:
    """Sum of p(v) v over the verdicts v, p from the log-probs of the first token that is one."""
    try:
        for token in choice["logprobs"]["content"]:
            if token["token"].strip() in map(str, SCALE):
                return _expected_token(token["top_logprobs"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return None


def _expected_token(candidates: list[Mapping[str, Any]]) -> float | None:
    mass = dict.fromkeys(map(str, SCALE), 0.0)
    for candidate in candidates:
        if (name := candidate["token"].strip()) in mass:
            mass[name] += math.exp(candidate["logprob"])
    total = sum(mass.values())
    if not MIN_MASS <= total <= 1 + 1e-3:
        return None
    return sum(int(name) * share for name, share in mass.items()) / total


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After` in seconds; a date is not read."""
    try:
        seconds = float(headers.get("Retry-After", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
