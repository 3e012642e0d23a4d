"""The remote recognizer against a real HTTP server."""

import asyncio
import io
import threading
import wave

import numpy as np
import pytest

from rewards.asr import Recognizer, Transcript, Word
from rewards.asr.remote import RemoteRecognizer, read_transcript, wav_bytes

web = pytest.importorskip("aiohttp.web")

OK = {"text": " hello  there", "words": [{"word": " hello", "start": 0.1, "end": 0.4}]}


@pytest.fixture
def served():
    """`served.answers(n)` gives (status, JSON) of call n; `served.calls` what came."""

    class Served:
        def __init__(self):
            self.calls, self.answers = [], lambda number: (200, OK)

        async def handle(self, request):
            form = await request.post()
            fields = {k: v if isinstance(v, str) else v.file.read() for k, v in form.items()}
            self.calls.append(fields)
            status, content = self.answers(len(self.calls))
            return web.json_response(content, status=status)

    served, loop = Served(), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start():
        application = web.Application()
        application.router.add_post("/v1/audio/transcriptions", served.handle)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        served.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v1"
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield served
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


CLIP = np.linspace(-1.5, 1.5, 1600).astype(np.float32)


def test_a_clip_is_a_wav_file_and_comes_back_as_words(served):
    recognizer = RemoteRecognizer(served.url, "whisper")
    assert isinstance(recognizer, Recognizer)
    expected = Transcript("hello there", (Word("hello", 0.1, 0.4),))
    assert recognizer.transcribe([CLIP, CLIP]) == [expected] * 2
    call = served.calls[0]
    assert (call["model"], call["temperature"]) == ("whisper", "0")
    with wave.open(io.BytesIO(call["file"])) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 1600)


@pytest.mark.parametrize("broken", [(500, {}), (429, {}), (200, {"words": []}), (200, [1])])
def test_failures_are_asked_again_and_then_missing(served, broken):
    served.answers = lambda number: broken if number < 3 else (200, OK)
    recognizer = RemoteRecognizer(served.url, "m", tries=3, backoff_s=0.01)
    assert recognizer.transcribe([CLIP])[0].text == "hello there"
    served.answers = lambda number: broken
    assert recognizer.transcribe([CLIP]) == [None]
    assert len(served.calls) == 6


def test_a_refusal_is_not_asked_again(served):
    served.answers = lambda number: (400, {})
    assert RemoteRecognizer(served.url, "m").transcribe([CLIP]) == [None]
    assert len(served.calls) == 1


def test_nobody_there():
    recognizer = RemoteRecognizer("http://127.0.0.1:9/v1", "m", tries=2, backoff_s=0.01)
    assert recognizer.transcribe([CLIP]) == [None]


def test_samples_are_clipped_not_wrapped():
    with wave.open(io.BytesIO(wav_bytes(CLIP))) as file:
        samples = np.frombuffer(file.readframes(1600), "<i2")
    assert (samples[0], samples[-1]) == (-32767, 32767)


def test_what_is_no_transcript():
    for body in (b"{}", b"[]", b"\xff", b"{"):
        with pytest.raises(ValueError):
            read_transcript(body)
    assert read_transcript(b'{"text": "a"}') == Transcript("a")
