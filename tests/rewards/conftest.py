"""A judge's server on loopback that answers as it is told."""

import asyncio
import json
import threading

import pytest


def completion(text="2", logprobs=None, tokens=10):
    choice = {"message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
    return json.dumps({"choices": [choice], "usage": {"total_tokens": tokens}}).encode()


def response(status=200, body=b"", headers=()):
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class JudgeServer:
    """`behave(body, number)` gives the bytes of the answer, after an optional wait in seconds.

    `away = True` closes the door: connections are refused, as those of a server that is down.
    """

    def __init__(self):
        self.requests = []
        self.headers = []
        self.behave = lambda body, number: (0.0, response(body=completion()))
        self.most_at_once = self.at_once = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.port = 0
        self.open()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def open(self):
        async def start():
            return await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)

        self.server = self._do(start())
        self.port = self.server.sockets[0].getsockname()[1]

    def shut(self):
        async def stop():
            self.server.close()

        self._do(stop())

    def close(self):
        self.shut()

        async def cancel():
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()

        self._do(cancel())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("GET"):
                writer.write(response(body=b"{}"))
            else:
                length = int(head.lower().split("content-length:")[1].split()[0])
                body = json.loads(await reader.readexactly(length))
                self.requests.append(body)
                self.headers.append(head)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    wait_s, answer = self.behave(body, len(self.requests))
                    await asyncio.sleep(wait_s)
                finally:
                    self.at_once -= 1
                writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@pytest.fixture
def server():
    server = JudgeServer()
    yield server
    server.close()
