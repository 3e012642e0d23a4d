"""Rewards with a judge: transcribe what was said, and ask whether the reply fits.

    pcm of rollouts and user ─ 16 kHz ─▶ words ─▶ a case per rollout ─▶ judge ─▶ verdicts

A `JudgedScorer` scores like `grpo.score.score_group`, and adds the component `JUDGE_REWARD` to the
axes that have it. It runs in the threads of a `ScoringPool`: the devices do not wait for it.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.signal
from jaxtyping import Float, Float32

from grpo.score import Rewards, agent_speech, score_group
from rewards import Dialogue, detect_speech, outcomes
from rewards.asr import Recognizer, TranscriptCache, transcribe_speech
from rewards.intervals import Interval
from rewards.judge import JUDGE_AXES, JUDGE_REWARD, Case, Judge, build_case
from rewards.judge.outage import Decision

Heard = list[tuple[float, str]] | None
"""Start and words of each utterance; None = missing: a recognizer failed."""


class JudgedScorer:
    """Rules and judge for the groups of a run.

    Args:
        judge: grades.
        recognizer: listens.
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
        recognizer: Recognizer,
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
        user: Float32[np.ndarray, " S"],
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
            user: what they heard, on the same clock.
            num_samples: as `score_group`.
            axis: as `score_group`.
            labels: as `score_group`.
            start_s: as `score_group`.
            duration_s: as `score_group`.
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
        agent, (said,) = (
            self._words(pcm, speech, end_s),
            self._words(user[None], self._user_speech(user), end_s),
        )
        cases = [
            None if heard is None or said is None else build_case(said, heard, reply_start_s=onset)
            for heard, onset in zip(agent, onsets, strict=True)
        ]
        return {**rewards, JUDGE_REWARD: self._verdicts(cases)}

    def _user_speech(self, user: Float32[np.ndarray, " S"]) -> list[list[Interval]]:
        return detect_speech(self._vad_params, user[None], sample_rate=24_000)

    def _words(
        self,
        pcm: Float32[np.ndarray, "G S"],
        speech: Sequence[Sequence[Interval]],
        end_s: float,
    ) -> list[Heard]:
        """What each row says before the end of the segment, on the clock of the rollout."""
        rows = list(scipy.signal.resample_poly(pcm, 2, 3, axis=1).astype(np.float32))
        inside = [[(a, min(b, end_s)) for a, b in row if a < end_s] for row in speech]
        with self._hearing:
            heard = transcribe_speech(self._recognizer, rows, inside, cache=self._transcripts)
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
