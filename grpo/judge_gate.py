"""The judge of a run: opened with it, asked before every epoch whether it is there, and closed."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import read_configs
from grpo.config import GRPOConfig
from grpo.judged import JudgedScorer, Writing
from grpo.metrics import every_process
from helium_jax import TextTokenizer
from rewards import load_vad
from rewards.asr import TranscriptCache, open_recognizer
from rewards.judge import Judge, JudgeConfig, OutageGuard, open_judge

logger = logging.getLogger("grpo")


class JudgeGate:
    """What stands between a run and its judge; a run without one has an open gate."""

    def __init__(
        self,
        judge: Judge | None = None,
        scorer: JudgedScorer | None = None,
        guard: OutageGuard | None = None,
    ) -> None:
        self._judge, self._scorer, self._guard = judge, scorer, guard

    @property
    def scoring(self) -> dict[str, Any]:
        """The scorer of the run's `ScoringPool`; nothing for its default."""
        return {} if self._scorer is None else {"scorer": self._scorer}

    def before_epoch(self) -> str | None:
        """Decide how the next epoch is scored.

        Returns:
            Why the run is to be saved and ended; None = it goes on. All processes agree.
        """
        if self._judge is None or self._scorer is None or self._guard is None:
            return None
        decision = self._guard.before_epoch(
            available=self._judge.available(), exhausted=self._judge.exhausted
        )
        if decision.draw != "all" or not decision.judge:
            logger.warning("the judge is away: %s (policy %s)", decision, self._guard.policy)
        self._scorer.decision = decision
        (stops,) = every_process(np.array([decision.stop is not None]))
        if not stops.any():
            return None
        return decision.stop or "the judge of another process is away"


@contextmanager
def open_judge_gate(config: GRPOConfig, folder: Path) -> Iterator[JudgeGate]:
    """Open judge and recognizer as the configuration names them; none unless it names one.

    What they said is kept in the run folder, a file a process: a run that is continued asks nothing
    twice, and its budget goes on.

    Raises:
        ImportError: something they need is not installed.
    """
    if config.judge.kind == "none":
        yield JudgeGate()
        return
    process = jax.process_index()
    judge = open_judge(_with_cache(config.judge, folder / f"judge-{process}.sqlite"))
    recognizer = open_recognizer(config.asr) or _writing(config.checkpoint)
    assert judge is not None  # GRPOConfig has seen to it
    transcripts = TranscriptCache(config.asr.cache or folder / f"transcripts-{process}.sqlite")
    ears = "nobody, read as written" if isinstance(recognizer, Writing) else recognizer.name
    logger.info("replies are judged by %s, heard by %s", judge.name, ears)
    scorer = JudgedScorer(judge, recognizer, transcripts, load_vad())
    try:
        yield JudgeGate(judge, scorer, OutageGuard(config.judge.remote.outage))
    finally:
        judge.close()
        transcripts.close()
        if (close := getattr(recognizer, "close", None)) is not None:
            close()


def _writing(folder: Path) -> Writing:
    checkpoint = read_configs(folder)
    mimi = checkpoint.mimi
    return Writing(TextTokenizer(checkpoint.tokenizer).piece, mimi.frame_samples / mimi.sample_rate)


def _with_cache(config: JudgeConfig, cache: Path) -> JudgeConfig:
    if config.remote.cache is not None:
        return config
    return dataclasses.replace(config, remote=dataclasses.replace(config.remote, cache=cache))
