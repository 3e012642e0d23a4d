"""The judge behind an OpenAI-compatible server: one pool of calls over any number of endpoints.

A thread runs an event loop; `submit` hands cases to it and returns. A call that fails is tried
again, elsewhere if there is an elsewhere; a case that stays unjudged is *missing*, never a number.
"""

import asyncio
import os
import random
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rewards.judge.breaker import Breaker
from rewards.judge.cache import AnswerCache, cache_key
from rewards.judge.config import RemoteConfig
from rewards.judge.endpoint import Answer, payload, read_answer
from rewards.judge.limits import Bucket, Usage
from rewards.judge.prompt import PROMPT_VERSION, messages
from rewards.judge.protocol import SILENT, Case, Handle, Verdict

_MAX_BODY_BYTES = 1 << 20
_POLL_S = 0.25  # how often a waiting call looks whether an endpoint is back
_CHARS_PER_TOKEN = 3.5


@dataclass
class _Endpoint:
    url: str
    breaker: Breaker
    resting_until: float = field(default=0.0)  # by its own Retry-After


class RemoteJudge:
    """See the module; `config` says where, how fast, how much, and what an outage means.

    Raises:
        ImportError: aiohttp is not installed.
        ValueError: no URL or model, the cache is not a database, or the key's variable is not set.
    """

    def __init__(self, config: RemoteConfig) -> None:
        if not (config.urls and config.model):
            raise ValueError(
                f"a remote judge with urls {config.urls} and model {config.model!r}, "
                "expected at least one URL and the name of a model"
            )
        try:
            import aiohttp
        except ImportError as error:
            raise ImportError(
                "a remote judge needs aiohttp: pip install 'moshi-jax[judge]'"
            ) from error
        self._aiohttp = aiohttp
        self.config = config
        self.name = f"remote:{config.model}"
        headers = {}
        if config.api_key_variable is not None:
            key = os.environ.get(config.api_key_variable)
            if not key:
                raise ValueError(f"the variable {config.api_key_variable} has no key of the judge")
            headers["Authorization"] = f"Bearer {key}"
        self._headers = headers
        self._cache = AnswerCache(config.cache)
        self.usage: Usage = self._cache.usage()
        self._random = random.Random(config.seed)
        self._next = 0
        self._in_flight: dict[str, asyncio.Task[Verdict]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()
        self._run(self._open())

    async def _open(self) -> None:
        config, clock = self.config, self._loop.time
        self._endpoints = [
            _Endpoint(
                url.rstrip("/"),
                Breaker(
                    failures=config.breaker_failures,
                    cooldown_s=config.breaker_cooldown_s,
                    clock=clock,
                ),
            )
            for url in config.urls
        ]
        self._slots = asyncio.Semaphore(config.concurrency)
        self._requests = Bucket(config.requests_per_minute, clock=clock)
        self._tokens = Bucket(config.tokens_per_minute, clock=clock)
        self._session = self._aiohttp.ClientSession(
            headers=self._headers,
            connector=self._aiohttp.TCPConnector(limit=0),
            timeout=self._aiohttp.ClientTimeout(
                total=config.read_timeout_s, sock_connect=config.connect_timeout_s
            ),
        )

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    # ------------------------------------------------------------------ the protocol

    def submit(self, cases: Sequence[Case]) -> Handle:
        """Begin to judge; returns at once.

        A reply without words is worth 0 by the rubric and costs no call. Equal cases on their way
        share one call.
        """
        futures: list[Future[Verdict]] = []
        for case in cases:
            if case.reply.strip():
                futures.append(asyncio.run_coroutine_threadsafe(self._judge(case), self._loop))
            else:
                silent: Future[Verdict] = Future()
                silent.set_result(SILENT)
                futures.append(silent)
        return Handle(futures)

    def available(self) -> bool:
        """Whether a case would be judged now; endpoints that were away are asked (`/models`)."""
        return not self.exhausted and self._run(self._any_alive())

    @property
    def exhausted(self) -> bool:
        """Whether the budget is used up: the run is to be saved and ended."""
        return not self.config.budget.allows(self.usage)

    def close(self) -> None:
        """Give up what is on its way; answers that came are in the cache."""
        if self._loop.is_closed():
            return
        self._run(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._cache.close()

    async def _shut(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._session.close()

    # ------------------------------------------------------------------ one case

    async def _judge(self, case: Case) -> Verdict:
        config = self.config
        body = payload(
            config.model,
            messages(case),
            structured=config.structured,
            soft=config.soft,
            thinking=config.thinking,
            max_tokens=config.max_answer_tokens,
        )
        key = cache_key(prompt=PROMPT_VERSION, body=body)
        if (cached := self._cache.get(key)) is not None:
            return cached
        if key not in self._in_flight:
            task = asyncio.ensure_future(self._ask(key, body))
            task.add_done_callback(lambda _: self._in_flight.pop(key, None))
            self._in_flight[key] = task
        # Who stops waiting does not take the answer away from the cache and from the others.
        return await asyncio.shield(self._in_flight[key])

    async def _ask(self, key: str, body: dict[str, Any]) -> Verdict:
        """Calls until there is a verdict, or a reason why there is none."""
        config = self.config
        size = sum(len(message["content"]) for message in body["messages"]) / _CHARS_PER_TOKEN
        tries, answer = 0, Answer("failed", raw="no endpoint was reached")
        gives_up_at: float | None = None
        async with self._slots:
            while tries < config.tries:
                if self.exhausted:
                    return Verdict(None, "over budget")
                now = self._loop.time()
                if not self._all_away():
                    gives_up_at = None
                elif config.outage != "block":
                    gives_up_at = gives_up_at or now + config.patience_s
                    if now >= gives_up_at:
                        return Verdict(None, "outage", answer.raw)
                endpoint, wait_s = self._pick()
                if endpoint is None:
                    await asyncio.sleep(min(wait_s, _POLL_S))
                    continue
                endpoint.breaker.begin()
                try:
                    await self._requests.take()
                    await self._tokens.take(size + config.max_answer_tokens)
                    answer = await self._call(endpoint, body)
                except BaseException:
                    endpoint.breaker.abandon()
                    raise
                self._note(endpoint, answer)
                if answer.kind in ("verdict", "unparsable"):
                    self._cache.add(
                        key,
                        judge=self.name,
                        endpoint=endpoint.url,
                        raw=answer.raw,
                        value=answer.value,
                    )
                if answer.kind == "verdict":
                    return Verdict(answer.value, "judged", answer.raw)
                if answer.kind == "refused":
                    return Verdict(None, "refused", answer.raw)
                if config.outage == "block" and answer.kind == "failed" and self._all_away():
                    continue  # the endpoints are away: that is no try of this case
                tries += 1
                if tries < config.tries:
                    await asyncio.sleep(self._backoff_s(tries))
        return Verdict(None, answer.kind, answer.raw)

    def _pick(self) -> tuple[_Endpoint | None, float]:
        """The next endpoint that may be called now, or how long until there is one."""
        now, waits = self._loop.time(), []
        for step in range(len(self._endpoints)):
            endpoint = self._endpoints[(self._next + step) % len(self._endpoints)]
            wait_s = max(endpoint.breaker.wait_s(), endpoint.resting_until - now)
            if wait_s <= 0:
                self._next += step + 1
                return endpoint, 0.0
            waits.append(wait_s)
        return None, min(waits)

    def _all_away(self) -> bool:
        return all(endpoint.breaker.is_open for endpoint in self._endpoints)

    def _note(self, endpoint: _Endpoint, answer: Answer) -> None:
        """What an answer says about its endpoint."""
        self.usage.tokens += answer.tokens
        self._cache.set_usage(self.usage)
        if answer.retry_after_s is not None:
            rest_s = min(answer.retry_after_s, self.config.max_rest_s)
            endpoint.resting_until = self._loop.time() + rest_s
        if answer.kind == "failed" and not answer.raw.startswith("429"):
            endpoint.breaker.fail()
        else:
            endpoint.breaker.succeed()

    def _backoff_s(self, tries: int) -> float:
        """Exponential, with full jitter: calls that failed together do not return together."""
        config = self.config
        most = min(config.backoff_s * 2 ** (tries - 1), config.max_backoff_s)
        return self._random.uniform(most / 2, most)

    # ------------------------------------------------------------------ one call

    async def _call(self, endpoint: _Endpoint, body: dict[str, Any]) -> Answer:
        self.usage.calls += 1
        try:
            async with self._session.post(f"{endpoint.url}/chat/completions", json=body) as reply:
                content = await self._read(reply)
                return read_answer(reply.status, reply.headers, content, soft=self.config.soft)
        except (self._aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return Answer("failed", raw=f"{type(error).__name__}: {error}")

    async def _read(self, reply: Any) -> bytes:
        content = b""
        async for chunk in reply.content.iter_chunked(1 << 16):
            content += chunk
            if len(content) > _MAX_BODY_BYTES:
                raise ValueError(f"an answer of more than {_MAX_BODY_BYTES} bytes")
        return content

    async def _any_alive(self) -> bool:
        """Asks the endpoints that are away whether they are back."""
        if not self._all_away():
            return True
        await asyncio.gather(*(self._probe(endpoint) for endpoint in self._endpoints))
        return not self._all_away()

    async def _probe(self, endpoint: _Endpoint) -> None:
        timeout = self._aiohttp.ClientTimeout(total=self.config.connect_timeout_s)
        try:
            async with self._session.get(f"{endpoint.url}/models", timeout=timeout) as reply:
                if reply.status == 200:
                    endpoint.breaker.succeed()
        except (self._aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return
