"""A recognizer behind `/v1/audio/transcriptions` of an OpenAI-compatible server."""

import asyncio
import io
import json
import os
import random
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from rewards.asr.protocol import SAMPLE_RATE, Transcript, Word


class RemoteRecognizer:
    """Sends clips as WAV files, a few at a time; what fails after `tries` calls is missing.

    Args:
        url: base URL, up to and with `/v1`.
        model: its name there, also the version in cache keys.
        api_key_variable: environment variable that holds the key.
        concurrency: calls on their way at once.
        tries: calls for one clip.
        timeout_s: of a call.
        backoff_s: longest wait before the second try; doubles with each.

    Raises:
        ImportError: aiohttp is not installed.
    """

    name = "remote"

    def __init__(
        self,
        url: str,
        model: str,
        *,
        api_key_variable: str | None = None,
        concurrency: int = 16,
        tries: int = 4,
        timeout_s: float = 60.0,
        backoff_s: float = 0.5,
    ) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise ImportError(
                "a remote recognizer needs aiohttp: pip install 'moshi-jax[judge]'"
            ) from error
        self._aiohttp = aiohttp
        self.version = f"{url} {model}"
        self._url, self._model = f"{url.rstrip('/')}/audio/transcriptions", model
        self._key = os.environ.get(api_key_variable) if api_key_variable else None
        if api_key_variable and not self._key:
            raise ValueError(f"the variable {api_key_variable} has no key of the recognizer")
        self._concurrency, self._tries = concurrency, tries
        self._timeout_s, self._backoff_s = timeout_s, backoff_s

    def transcribe(self, batch: Sequence[Float32[np.ndarray, "..."]]) -> list[Transcript | None]:
        """See `Recognizer.transcribe`."""
        return asyncio.run(self._all(batch))

    async def _all(self, batch: Sequence[Any]) -> list[Transcript | None]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        slots = asyncio.Semaphore(self._concurrency)
        timeout = self._aiohttp.ClientTimeout(total=self._timeout_s)
        async with self._aiohttp.ClientSession(headers=headers, timeout=timeout) as session:

            async def one(clip: Any) -> Transcript | None:
                async with slots:
                    return await self._ask(session, clip)

            return list(await asyncio.gather(*(one(clip) for clip in batch)))

    async def _ask(self, session: Any, clip: Float32[np.ndarray, " S"]) -> Transcript | None:
        for attempt in range(self._tries):
            if attempt:
                most = self._backoff_s * 2 ** (attempt - 1)
                await asyncio.sleep(random.uniform(most / 2, most))
            form = self._aiohttp.FormData()
            form.add_field("file", wav_bytes(clip), filename="clip.wav", content_type="audio/wav")
            form.add_field("model", self._model)
            form.add_field("response_format", "verbose_json")
            form.add_field("temperature", "0")
            try:
                async with session.post(self._url, data=form) as reply:
                    body = await reply.read()
                    if reply.status == 200:
                        return read_transcript(body)
                    if reply.status not in (408, 429) and reply.status < 500:
                        return None  # the call itself is wrong: asking again does not help
            except (self._aiohttp.ClientError, TimeoutError, OSError, ValueError):
                continue
        return None


def wav_bytes(clip: Float32[np.ndarray, " S"]) -> bytes:
    """A clip as a 16-bit WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(clip, -1, 1) * 32767).round().astype("<i2").tobytes())
    return buffer.getvalue()


def read_transcript(body: bytes) -> Transcript:
    """The transcript in a response.

    Raises:
        ValueError: there is none.
    """
    try:
        content = json.loads(body)
        text = " ".join(content["text"].split())
        words = content.get("words")
        if words is not None:
            words = tuple(
                Word(w["word"].strip(), float(w["start"]), float(w["end"])) for w in words
            )
        return Transcript(text, words)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"no transcript in {body[:200]!r}") from error
