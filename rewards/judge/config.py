"""Which judge, and everything its verdicts and its manners depend on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rewards.checks import require_at_least_0, require_one_of
from rewards.judge.limits import Budget

OutagePolicy = Literal["defer", "block", "degrade", "abort"]
OUTAGE_POLICIES: tuple[OutagePolicy, ...] = ("defer", "block", "degrade", "abort")


@dataclass(frozen=True, kw_only=True)
class RemoteConfig:
    """A served judge.

    Raises:
        ValueError: a value out of its range.
    """

    urls: tuple[str, ...] = ()
    """Base URLs of OpenAI-compatible servers, up to and with `/v1`; calls go round."""
    model: str = ""
    """The name of the model there."""
    api_key_variable: str | None = None
    """Environment variable that holds the key; the key itself is never written anywhere."""
    structured: Literal["choice", "none"] = "choice"
    """Hold the answer to 0, 1 or 2 where the server can (vLLM, SGLang); "none" for others."""
    soft: bool = False
    """The expected verdict under the judge's probabilities: fewer rollouts of a group tie."""
    thinking: bool = False
    """Let a reasoning model think first; needs a larger `max_answer_tokens`."""
    max_answer_tokens: int = 4
    """Longest answer."""
    concurrency: int = 64
    """Calls on their way at once."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    """Longest time of a whole call."""
    tries: int = 4
    """Calls for one case; failures while every endpoint is away do not count under "block"."""
    backoff_s: float = 0.5
    """Longest wait before the second try; doubles with each."""
    max_backoff_s: float = 8.0
    max_rest_s: float = 60.0
    """Longest `Retry-After` that is obeyed."""
    breaker_failures: int = 5
    """Failures in a row after which an endpoint is left alone."""
    breaker_cooldown_s: float = 15.0
    """For how long."""
    outage: OutagePolicy = "defer"
    """What to do when every endpoint is away, see `OutageGuard`."""
    patience_s: float = 30.0
    """How long a case waits for an endpoint to come back before it is missing; under "block" it
    waits for ever."""
    budget: Budget = field(default_factory=Budget)
    """The most a run may use, counted over restarts when there is a cache file."""
    cache: Path | None = None
    """sqlite file of every answer; none keeps them for this process only."""
    seed: int = 0
    """Of the jitter."""

    def __post_init__(self) -> None:
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"RemoteConfig.urls has {url!r}, expected http:// or https://")
        require_one_of(self, "outage", OUTAGE_POLICIES)
        require_at_least_0(
            self,
            ("connect_timeout_s", "read_timeout_s", "backoff_s", "max_backoff_s", "max_rest_s",
             "breaker_cooldown_s", "patience_s"),
        )  # fmt: skip
        for name in ("concurrency", "tries", "max_answer_tokens", "breaker_failures"):
            if not getattr(self, name) >= 1:
                raise ValueError(
                    f"RemoteConfig.{name} is {getattr(self, name)}, expected 1 or more"
                )


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Which judge a run uses; none unless one is named."""

    kind: Literal["none", "embedded", "remote"] = "none"
    """ "embedded" is a small local one, whose limits `docs/rewards.md` tells; it is a choice, never
    a replacement for a server that does not answer."""
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """Of a "remote" judge."""

    def __post_init__(self) -> None:
        require_one_of(self, "kind", ("none", "embedded", "remote"))
        if self.kind == "remote" and not (self.remote.urls and self.remote.model):
            raise ValueError(
                "JudgeConfig.kind is 'remote', expected at least one remote.urls and remote.model"
            )
        if self.kind != "remote" and self.remote.urls:
            raise ValueError(
                f"JudgeConfig.kind is {self.kind!r} and remote.urls is {self.remote.urls}, "
                "expected no URLs, or kind 'remote'"
            )
