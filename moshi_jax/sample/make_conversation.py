"""Makes `conversation.flac` and `conversation.json`: a two-channel talk whose times are known.

    python -m moshi_jax.sample.make_conversation [FOLDER]

The agent (flite voice slt) is the left channel, the user (rms) the right one, as in moshi-finetune;
`script.py` holds the words and the timing. Outside the listed phrases a channel is digital silence:
every sample is zero.

Needs the `flite` command with the voices slt and rms (Debian package `flite`) and the extra
`audio`. No randomness: two runs give the same samples.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from layers_jax.files import atomic_path
from mimi_jax.audio_file import read_audio, resample, write_audio
from moshi_jax.sample.script import SCRIPT, Turn, other

__all__ = ["build", "main"]

SAMPLE_RATE = 24_000
FLITE_RATE = 16_000
VOICES = {"agent": "slt", "user": "rms"}  # in channel order
LEVEL_DBFS = -24.0  # RMS over the speech of each channel
EDGE_DB = -40.0  # below the loudest 10 ms of its phrase, sound counts as silence
FADE_S = 0.005
LEAD_IN_S, LEAD_OUT_S = 1.0, 1.5


class Voice:
    """The flite voices: (speaker, text) to samples at 24 kHz, trimmed, both voices equally loud."""

    def __init__(self, script: tuple[Turn, ...]) -> None:
        self._phrases: dict[tuple[str, str], np.ndarray] = {}
        for turn in script:
            listener = other(turn.speaker)
            for part in turn.parts:
                if isinstance(part, str):
                    self._phrases[turn.speaker, part] = _speak(VOICES[turn.speaker], part)
            for reply in turn.backchannels:
                self._phrases[listener, reply.text] = _speak(VOICES[listener], reply.text)
        for speaker in VOICES:
            said = np.concatenate([pcm for key, pcm in self._phrases.items() if key[0] == speaker])
            gain = float(10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(np.square(said))))
            for key in self._phrases:
                if key[0] == speaker:
                    self._phrases[key] *= gain

    def __call__(self, speaker: str, text: str) -> Float32[np.ndarray, " S"]:
        return self._phrases[speaker, text]


def _speak(voice: str, text: str) -> Float32[np.ndarray, " S"]:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "phrase.wav"
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", wav], check=True)
        pcm = read_audio(wav, sample_rate=FLITE_RATE)[0]
    window = FLITE_RATE // 100
    energy = np.convolve(np.square(pcm), np.full(window, 1 / window), mode="same")
    sound = np.flatnonzero(energy > energy.max() * 10 ** (EDGE_DB / 10))
    pcm = resample(pcm[None, sound[0] : sound[-1] + 1], FLITE_RATE, SAMPLE_RATE)[0]
    fade = np.sin(np.linspace(0, np.pi / 2, round(FADE_S * SAMPLE_RATE))) ** 2
    pcm[: fade.size] *= fade
    pcm[-fade.size :] *= fade[::-1]
    return pcm


@dataclasses.dataclass(kw_only=True)
class _Utterance:
    speaker: str
    kind: str
    phrases: list[tuple[str, int, int]]  # text, first sample, one past the last

    @property
    def start(self) -> int:
        return self.phrases[0][1]

    @property
    def end(self) -> int:
        return self.phrases[-1][2]

    def pauses(self) -> list[tuple[int, int]]:
        ends_and_starts = zip(self.phrases, self.phrases[1:], strict=False)
        return [(before[2], after[1]) for before, after in ends_and_starts]


def _lay_out(script: tuple[Turn, ...], voice: Voice) -> tuple[list[_Utterance], list[dict]]:
    utterances: list[_Utterance] = []
    events: list[dict] = []
    previous: _Utterance | None = None
    for turn in script:
        now = round((turn.gap_s if previous else LEAD_IN_S) * SAMPLE_RATE)
        now += previous.end if previous else 0
        phrases = []
        for part in turn.parts:
            if isinstance(part, float):
                now += round(part * SAMPLE_RATE)
            else:
                phrases.append((part, now, now := now + voice(turn.speaker, part).size))
        kind = "barge_in" if turn.gap_s < 0 else "turn"
        utterance = _Utterance(speaker=turn.speaker, kind=kind, phrases=phrases)
        utterances.append(utterance)
        for start, end in utterance.pauses():
            events.append(_event("pause", turn.speaker, start, end))
        if previous and kind == "barge_in":
            events.append(_event("barge_in", turn.speaker, utterance.start, previous.end))
        elif previous:
            events.append(_event("turn_change", turn.speaker, previous.end, utterance.start))
        listener = other(turn.speaker)
        for reply in turn.backchannels:
            start = phrases[reply.after_phrase - 1][2] + round(reply.delay_s * SAMPLE_RATE)
            end = start + voice(listener, reply.text).size
            utterances.append(
                _Utterance(speaker=listener, kind="backchannel", phrases=[(reply.text, start, end)])
            )
            events.append(_event("backchannel", listener, start, end))
        previous = utterance
    events.sort(key=lambda event: (event["start_s"], event["end_s"]))
    return sorted(utterances, key=lambda utterance: utterance.start), events


def _event(kind: str, speaker: str, start: int, end: int) -> dict:
    return {"kind": kind, "speaker": speaker, "start_s": _seconds(start), "end_s": _seconds(end)}


def _seconds(samples: int) -> float:
    return round(samples / SAMPLE_RATE, 6)


def build() -> tuple[Float32[np.ndarray, "C S"], dict]:
    """Speaks the script.

    Returns:
        pcm: float32 [C, S] at 24 kHz, C = (agent, user).
        times: what `conversation.json` holds. An utterance lists its phrases (the stretches that
            are not silent) and the pauses between them. An event has the speaker who makes it:
            `pause` (a silence inside an utterance), `turn_change` (from the end of the other's
            turn to the start of this speaker's), `backchannel`, `barge_in` (from the start of the
            interruption to the moment the other has fallen silent).

    Raises:
        FileNotFoundError: the command `flite` is not installed.
        subprocess.CalledProcessError: flite failed.
    """
    voice = Voice(SCRIPT)
    utterances, events = _lay_out(SCRIPT, voice)
    length = max(utterance.end for utterance in utterances) + round(LEAD_OUT_S * SAMPLE_RATE)
    pcm = np.zeros((len(VOICES), length), np.float32)
    for utterance in utterances:
        channel = list(VOICES).index(utterance.speaker)
        for text, start, end in utterance.phrases:
            pcm[channel, start:end] += voice(utterance.speaker, text)
    times = {
        "audio": "conversation.flac",
        "sample_rate_hz": SAMPLE_RATE,
        "duration_s": _seconds(length),
        "speakers": {
            speaker: {"channel": channel, "voice": f"flite cmu_us_{name}"}
            for channel, (speaker, name) in enumerate(VOICES.items())
        },
        "utterances": [
            {
                "speaker": utterance.speaker,
                "kind": utterance.kind,
                "text": " ".join(text for text, _, _ in utterance.phrases),
                "start_s": _seconds(utterance.start),
                "end_s": _seconds(utterance.end),
                "phrases": [
                    {"text": text, "start_s": _seconds(start), "end_s": _seconds(end)}
                    for text, start, end in utterance.phrases
                ],
                "pauses": [
                    {"start_s": _seconds(start), "end_s": _seconds(end)}
                    for start, end in utterance.pauses()
                ],
            }
            for utterance in utterances
        ],
        "events": events,
    }
    return pcm, times


def main(folder: Path) -> None:
    """Writes both files into `folder`."""
    pcm, times = build()
    write_audio(folder / "conversation.flac", pcm, SAMPLE_RATE)
    with atomic_path(folder / "conversation.json") as temporary:
        temporary.write_text(json.dumps(times, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
