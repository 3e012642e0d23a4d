import sys
from types import SimpleNamespace

import numpy as np
import pytest

from rewards.asr import Word
from rewards.asr.parakeet import Parakeet, join_tokens


def test_tokens_to_words():
    words = join_tokens([" hel", "lo", " there", "."], [0.16, 0.32, 0.8, 1.2])
    assert words == (Word("hello", 0.16, 0.4), Word("there.", 0.8, 1.28))
    assert join_tokens(["\u2581a"], [0.0]) == (Word("a", 0.0, 0.08),)
    assert join_tokens(None, [0.0]) is None
    assert join_tokens([" a"], None) is None


def test_the_calls_of_onnx_asr(monkeypatch):
    """onnx-asr's own interface, without its weights."""
    calls = []

    class Model:
        def with_timestamps(self):
            return self

        def recognize(self, batch, sample_rate):
            calls.append((len(batch), sample_rate))
            return [
                SimpleNamespace(text=" hi  you", tokens=[" hi", " you"], timestamps=[0.0, 0.5],
                                logprobs=[-0.5, -1.5])
                for _ in batch
            ]  # fmt: skip

    def load_model(name, folder, quantization):
        calls.append((name, folder, quantization))
        return Model()

    monkeypatch.setitem(sys.modules, "onnx_asr", SimpleNamespace(load_model=load_model))
    recognizer = Parakeet(quantization="int8")
    (heard,) = recognizer.transcribe([np.zeros(16_000, np.float32)])
    assert (heard.text, heard.logprob, len(heard.words)) == ("hi you", -1.0, 2)
    assert calls == [("nemo-parakeet-tdt-0.6b-v2", None, "int8"), (1, 16_000)]
    assert (recognizer.name, recognizer.version) == ("nemo-parakeet-tdt-0.6b-v2", "int8")


def test_without_onnx_asr(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx_asr", None)
    with pytest.raises(ImportError, match=r"moshi-jax\[parakeet\]"):
        Parakeet()
