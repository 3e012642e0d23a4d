"""Rewards with a judge: find out what was said, and ask whether the reply fits.

    pcm of the rollouts ─ 16 kHz ─▶ recognizer ─▶ words ─┐
        (or what they wrote: their text tokens)          ├─▶ a case per rollout ─▶ judge ─▶ verdicts
    transcript of the user, or pcm ─▶ recognizer ─▶ words ┘

A `JudgedScorer` scores like `grpo.score.score_group`, and adds the component `JUDGE_REWARD` to the
axes that have it. It runs in the threads of a `ScoringPool`: the devices do not wait for it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32, Int

from grpo.data import Words
from grpo.score import Rewards, agent_speech, score_group
from rewards import Dialogue, detect_speech, outcomes
from rewards.asr import (
    Recognizer,
    Said,
    TranscriptCache,
    text_stream_words,
    transcribe_speech,
    utterances_of_words,
)
from rewards.intervals import Interval
from rewards.judge import JUDGE_AXES, JUDGE_REWARD, Case, Judge, build_case
from rewards.judge.outage import Decision

Heard = list[Said] | None
"""Start and words of each utterance; None = missing: a recognizer failed."""

TEXT_LEAD_S = 0.5
"""The first word of a reply may be written this long before the detector hears it."""


class Writing(NamedTuple):
    """How text tokens are read."""

    piece: Callable[[int], str]  # of a token; empty for padding
    frame_s: float


class JudgedScorer:
    """Rules and judge for the groups of a run.

    Args:
        judge: grades.
        recognizer: listens; with `Writing` in its place, the rollouts are read instead, and the
            user's words are those of the corpus.
        transcripts: what was heard before; the user's side is the same in every epoch.
        vad_params: of `rewards.load_vad`, for the user's side.

    `decision` is that of `OutageGuard` for the epoch: with `judge` off the verdicts are missing,
    and with `draw` "without judge" all rewards of a judged axis are, so that such a group teaches
    nothing (and never its delay alone).
    """

    listens = True

    def __init__(
        self,
        judge: Judge,
        recognizer: Recognizer | Writing,
        transcripts: TranscriptCache,
        vad_params: Any,
    ) -> None:
        self._judge, self._recognizer = judge, recognizer
        self._transcripts, self._vad_params = transcripts, vad_params
        self._hearing = threading.Lock()  # one recognizer, and one sqlite connection
        self.decision = Decision()

    def __call__(
        self,
        probabilities: Float[np.ndarray, "G F"],
        *,
        pcm: Float32[np.ndarray, "G S"],
        text: Int[np.ndarray, "G T"],
        user: Float32[np.ndarray, " S"],
        user_words: Words | None,
        num_samples: int,
        axis: str,
        labels: Mapping[str, Any],
        start_s: float,
        duration_s: float,
    ) -> Rewards:
        """Every reward of the axis, as `score_group`.

        Args:
            probabilities: as `score_group`.
            pcm: the rollouts, whole, at 24 kHz.
            text: their text tokens.
            user: what they heard, on the same clock.
            user_words: the same as words, if the corpus has them.
            num_samples: as `score_group`.
            axis: as `score_group`.
            labels: as `score_group`.
            start_s: as `score_group`.
            duration_s: as `score_group`.

        Raises:
            ValueError: nobody listens, and the corpus has no words of the user.
        """
        decision = self.decision
        rewards = score_group(
            probabilities,
            num_samples=num_samples,
            axis=axis,
            labels=labels,
            start_s=start_s,
            duration_s=duration_s,
        )
        if axis not in JUDGE_AXES:
            return rewards
        nothing = np.full(len(pcm), np.nan)
        if decision.draw == "without judge":
            return {name: nothing for name in (*rewards, JUDGE_REWARD)}
        if not decision.judge:
            return {**rewards, JUDGE_REWARD: nothing}
        speech = [agent_speech(row, num_samples) for row in probabilities]
        onsets = [_onset_s(axis, intervals, labels, start_s, duration_s) for intervals in speech]
        end_s = start_s + duration_s
        said = self._user(user, user_words, end_s)
        if isinstance(self._recognizer, Writing):
            agent = [self._written(row, end_s) for row in text]
            onsets = [None if onset is None else onset - TEXT_LEAD_S for onset in onsets]
        else:
            agent = self._heard(self._recognizer, pcm, speech, end_s)
        cases = [
            None if heard is None or said is None else build_case(said, heard, reply_start_s=onset)
            for heard, onset in zip(agent, onsets, strict=True)
        ]
        return {**rewards, JUDGE_REWARD: self._verdicts(cases)}

    def _user(self, user: Float32[np.ndarray, " S"], words: Words | None, end_s: float) -> Heard:
        if words is not None:
            return utterances_of_words([word for word in words if word[1] < end_s])
        if isinstance(self._recognizer, Writing):
            raise ValueError(
                "asr.kind is 'text_stream' and the segments have no words of the user, expected a "
                "corpus with a transcript, or a recognizer that listens; choose another --asr.kind"
            )
        speech = detect_speech(self._vad_params, user[None], sample_rate=24_000)
        return self._heard(self._recognizer, user[None], speech, end_s)[0]

    def _written(self, text: Int[np.ndarray, " T"], end_s: float) -> list[Said]:
        assert isinstance(self._recognizer, Writing)
        piece, frame_s = self._recognizer
        pieces = [piece(int(token)) for token in text]
        return [word for word in text_stream_words(pieces, frame_s=frame_s) if word[0] < end_s]

    def _heard(
        self,
        recognizer: Recognizer,
        pcm: Float32[np.ndarray, "G S"],
        speech: Sequence[Sequence[Interval]],
        end_s: float,
    ) -> list[Heard]:
        """What each row says before the end of the segment, on the clock of the rollout."""
        rows = list(scipy.signal.resample_poly(pcm, 2, 3, axis=1).astype(np.float32))
        inside = [[(a, min(b, end_s)) for a, b in row if a < end_s] for row in speech]
        with self._hearing:
            heard = transcribe_speech(recognizer, rows, inside, cache=self._transcripts)
        return [
            None
            if any(transcript is None for _, transcript in row)
            else [(start, transcript.text) for start, transcript in row if transcript is not None]
            for row in heard
        ]

    def _verdicts(self, cases: Sequence[Case | None]) -> Float[np.ndarray, " G"]:
        values = np.full(len(cases), np.nan)
        asked = [row for row, case in enumerate(cases) if case is not None]
        handle = self._judge.submit([case for case in cases if case is not None])
        for row, verdict in zip(asked, handle.result(), strict=True):
            if verdict.value is not None:
                values[row] = verdict.value
        return values


def _onset_s(
    axis: str,
    speech: Sequence[Interval],
    labels: Mapping[str, Any],
    start_s: float,
    duration_s: float,
) -> float | None:
    """Onset of the response by the axis's own timing rule, on the clock of the rollout."""
    agent = tuple((a - start_s, b - start_s) for a, b in speech)
    dialogue = Dialogue.of_segment(duration_s=duration_s, agent=agent, labels=labels)
    for outcome in outcomes(dialogue, axis).values():
        onset_s = outcome.facts.get("onset_s")
        if isinstance(onset_s, float):
            return onset_s + start_s
    return None
