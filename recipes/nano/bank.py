"""Records the repertoire with flite: one FLAC, one JSON.

    python -m recipes.nano.bank DST

The same flite gives the same files.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tyro.conf import Positional

from layers_jax.command import run_command
from layers_jax.files import atomic_path
from mimi_jax import write_audio
from moshi_jax.nano.bank import Timed
from moshi_jax.nano.sentences import LINES, Ending, Line
from recipes.nano.speech import SAMPLE_RATE, Spoken, Voice
from recipes.nano.voices import (
    AGENT_STRETCH,
    BACKCHANNEL_STRETCH,
    MANNERS,
    agent_says,
    user_says,
)

AGENT_VOICE, USER_VOICE = "awb", "slt"
GAIN = 16.0
"""The file is this much quieter than what is read, which saves FLAC 4 bits a sample; the noise of
rounding stays 50 dB below the voice."""
GRID = 1280
"""Recordings start on a frame of the codec, 80 ms at 16 kHz, with silence between them."""


@dataclass(frozen=True, kw_only=True)
class BankRecipe:
    """Where the recordings go."""

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="DST")]
    """Gets bank.flac and bank.json; made if it is not there."""

    def run(self) -> None:
        """Speaks everything and writes both files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record(self.folder)


def parts() -> dict[tuple[str, str, Ending], Line]:
    """Every part that somebody says, with the first line that has it, a training line if any."""
    found: dict[tuple[str, str, Ending], Line] = {}
    for line in sorted(LINES, key=lambda line: line.split != "train"):
        for part, ending in zip(line.parts, line.endings, strict=True):
            found.setdefault((line.speaker, part, ending), line)
    return found


def record(folder: Path) -> None:
    """Writes the bank.

    Raises:
      FileNotFoundError: flite or a voice is not installed.
    """
    agent, user = Voice(AGENT_VOICE), Voice(USER_VOICE)
    entries: list[dict[str, Any]] = []
    sounds: list[np.ndarray] = []
    now = 0
    for (speaker, text, ending), line in parts().items():
        if speaker == "agent":
            stretch = BACKCHANNEL_STRETCH if line.kind == "backchannel" else AGENT_STRETCH
            variants = [agent_says(agent, text, stretch=stretch)]
        else:
            variants = [user_says(user, text, ending, manner) for manner in MANNERS]
        for variant, spoken in enumerate(variants):
            sound = np.pad(spoken.pcm, (0, GRID - spoken.pcm.size % GRID))
            entries.append(
                {
                    "speaker": speaker,
                    "text": text,
                    "ending": ending,
                    "kind": line.kind,
                    "split": line.split,
                    "variant": variant,
                    "start": now,
                    "end": now + spoken.pcm.size,
                    **_times(spoken),
                }
            )
            sounds.append(sound)
            now += sound.size
    pcm = np.concatenate(sounds)
    if np.abs(pcm).max() > 1:
        raise ValueError(f"a recording peaks at {np.abs(pcm).max():.2f}, expected at most 1")
    write_audio(folder / "bank.flac", pcm / GAIN, SAMPLE_RATE)
    head = {"sample_rate_hz": SAMPLE_RATE, "samples": now, "gain": GAIN}
    with atomic_path(folder / "bank.json") as temporary:
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        fields = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
        temporary.write_text(f'{{{fields}, "recordings": [\n{lines}\n]}}\n', encoding="utf-8")
    spoken_s = {who: _seconds(entries, who) for who in ("agent", "user")}
    print(f"{len(entries)} recordings, seconds {spoken_s}, {folder}")


def _times(spoken: Spoken) -> dict[str, list[list[str | float]]]:
    def rounded(items: Sequence[Timed]) -> list[list[str | float]]:
        return [[name, round(start, 3), round(end, 3)] for name, start, end in items]

    return {"words": rounded(spoken.words), "phones": rounded(spoken.phones)}


def _seconds(entries: list[dict[str, Any]], speaker: str) -> float:
    own = [entry for entry in entries if entry["speaker"] == speaker]
    return round(sum(entry["end"] - entry["start"] for entry in own) / SAMPLE_RATE, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Records into the folder given; returns 0."""
    tyro.cli(BankRecipe, args=argv, description=__doc__).run()
    return 0


if __name__ == "__main__":
    sys.exit(run_command("python -m recipes.nano.bank", main))
