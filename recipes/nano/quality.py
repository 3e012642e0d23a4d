"""How well the nano codec carries both voices: one streamed round trip, heard twice.

    python -m recipes.nano.quality CODEC

A voice detector (Silero) says whether there is speech where there was; a recogniser that knows
nothing of the repertoire (pocketsphinx with its own American model: pip install pocketsphinx) says
whether it can be understood. Both also hear the original, for no recogniser is right about that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Float32
from tyro.conf import Positional

from layers_jax.command import run_command
from layers_jax.functional import Params
from mimi_jax import BlockCodec, Mimi, resample
from moshi_jax.nano.bank import SAMPLE_RATE, Recording, read_bank
from moshi_jax.nano.sentences import Speaker, Split
from recipes.nano.codec import load_codec
from recipes.nano.tracks import FRAME
from recipes.nano.training import write_json
from rewards import load_vad, speech_probabilities
from rewards.rollout_statistics import edit_distance

ASR_RATE = 16_000
MARGIN_S = 0.25
GAP_S = (0.6, 1.2)


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What is heard."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="CODEC")]
    """Folder with the codec's weights and config."""
    split: Split = "heldout"
    """Lines that are heard: "heldout" ones were never trained on."""
    codebooks: int = 4
    """How many of each frame's codes are decoded."""
    off_grid: bool = False
    """Let the agent too begin anywhere, not on the frame grid as in conversations."""
    examples: int = 3
    """Sentences of each speaker that are printed as they were understood."""
    out: Path | None = None
    """JSON file for the figures."""
    seed: int = 0
    """Of the silences between utterances."""

    def run(self) -> None:
        """Prints the figures."""
        found = measure(self)
        print(json.dumps(found, indent=2))
        if self.out is not None:
            write_json(self.out, found)


class Placed(NamedTuple):
    """An utterance and its first sample in the stream."""

    recording: Recording
    start: int


def measure(options: Quality) -> dict[str, Any]:
    """Figures of both speakers.

    Raises:
      ImportError: pocketsphinx is not installed.
    """
    mimi, params = load_codec(options.folder)
    hear = recogniser()
    found: dict[str, Any] = {
        "split": options.split,
        "codebooks": options.codebooks,
        "agent_on_grid": not options.off_grid,
        "speakers": {},
    }
    for speaker in ("agent", "user"):
        pcm, placed = stream(options, speaker)
        decoded = round_trip(mimi, params, pcm, options.codebooks)
        found["speakers"][speaker] = {
            **detection(pcm, decoded),
            **recognition(hear, placed, pcm, decoded, options.examples),
        }
    return found


def stream(options: Quality, speaker: Speaker) -> tuple[Float32[np.ndarray, " S"], list[Placed]]:
    """Every turn of one speaker (parts before a pause are left out), one after the other."""
    rng = np.random.default_rng(options.seed)
    said = [
        recording
        for recording in read_bank().recordings
        if (recording.speaker, recording.split) == (speaker, options.split)
        if recording.ending == "fall" and recording.kind != "backchannel"
    ]
    step = FRAME if speaker == "agent" and not options.off_grid else 1
    placed, now = [], 0
    for recording in said:
        now += round(rng.uniform(*GAP_S) * SAMPLE_RATE)
        now = -(-now // step) * step
        placed.append(Placed(recording, now))
        now += recording.pcm.size
    pcm = np.zeros(-(-(now + SAMPLE_RATE) // FRAME) * FRAME, np.float32)
    for recording, start in placed:
        pcm[start : start + recording.pcm.size] = recording.pcm
    return pcm, placed


def round_trip(
    mimi: Mimi, params: Params, pcm: Float32[np.ndarray, " S"], codebooks: int
) -> Float32[np.ndarray, " S"]:
    """Encoded and decoded frame by frame, as in a session."""
    codec = BlockCodec(mimi, params)
    codes = [block[0] for block in codec.encode([[pcm]])]
    kept = [block[:codebooks] for block in codes]
    return np.concatenate([block[0] for block in codec.decode([kept])])[: pcm.size]


def detection(
    original: Float32[np.ndarray, " S"], decoded: Float32[np.ndarray, " S"]
) -> dict[str, float]:
    """Shares of the detector's hops of 32 ms, and the level."""
    vad = load_vad()
    wanted, heard = (
        np.asarray(speech_probabilities(vad, jnp.asarray(_at_asr_rate(pcm))[None]))[0] > 0.5
        for pcm in (original, decoded)
    )
    return {
        "vad_agreement": round(float(np.mean(wanted == heard)), 4),
        "vad_recall": round(float(np.mean(heard[wanted])), 4),
        "vad_false_alarm": round(float(np.mean(heard[~wanted])), 4),
        "level": round(float(np.sqrt(np.mean(decoded**2) / np.mean(original**2))), 3),
    }


def recognition(
    hear: Any,
    placed: Sequence[Placed],
    original: Float32[np.ndarray, " S"],
    decoded: Float32[np.ndarray, " S"],
    examples: int,
) -> dict[str, Any]:
    """Word error of the original and of the round trip."""
    words = sum(len(recording.words) for recording, _ in placed)
    found: dict[str, Any] = {"utterances": len(placed), "words": words}
    for name, pcm in (("original", original), ("round_trip", decoded)):
        heard = [hear(piece) for piece in _cut(placed, pcm)]
        texts = [recording.text for recording, _ in placed]
        pairs = list(zip(texts, heard, strict=True))
        errors = sum(edit_distance(a.split(), b.split()) for a, b in pairs)
        found[f"word_error_{name}"] = round(errors / words, 3)
        found[f"examples_{name}"] = [f"{a} -> {b}" for a, b in pairs[:examples]]
    return found


def _cut(
    placed: Iterable[Placed], pcm: Float32[np.ndarray, " S"]
) -> Iterator[Float32[np.ndarray, " s"]]:
    margin = round(MARGIN_S * SAMPLE_RATE)
    for recording, start in placed:
        yield pcm[max(0, start - margin) : start + recording.pcm.size + margin]


def recogniser() -> Any:
    """A function from speech at 24 kHz to what pocketsphinx understands.

    Raises:
      ImportError: it is not installed.
    """
    try:
        from pocketsphinx import Decoder
    except ImportError as error:
        raise ImportError("word error needs a recogniser: pip install pocketsphinx") from error
    decoder = Decoder(loglevel="FATAL", samprate=ASR_RATE)

    def hear(pcm: Float32[np.ndarray, " s"]) -> str:
        steps = np.clip(np.rint(_at_asr_rate(pcm) * 32768), -32768, 32767).astype(np.int16)
        decoder.start_utt()
        decoder.process_raw(steps.tobytes(), full_utt=True)
        decoder.end_utt()
        best = decoder.hyp()
        return best.hypstr if best else ""

    return hear


def _at_asr_rate(pcm: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, " r"]:
    return resample(pcm[None], SAMPLE_RATE, ASR_RATE)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the codec given; returns 0."""
    tyro.cli(Quality, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.quality", main))
