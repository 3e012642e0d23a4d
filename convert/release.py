"""What goes with released weights: how far they moved, where they come from, terms, hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from convert.checkpoint import read_configs
from convert.errors import ConversionError
from convert.sources import Source, abstract_params, open_source

HASHES_NAME = "SHA256SUMS"
CARD_NAME = "README.md"
# Under it a bfloat16 release is nearly the base model: a step of training is far below half a unit
# in the last place. The share at which SteerDuplex lets a release pass.
ENOUGH = 0.05

# What a licence asks a derived release to say; licences are of the weights, by base repository.
_TERMS = {
    "kyutai/moshi": (
        "cc-by-4.0",
        "Based on Moshi by Kyutai (arXiv 2410.00037), CC BY 4.0; the weights were changed.",
    ),
    "nvidia/personaplex": (
        "other",
        "Licensed by NVIDIA Corporation under the NVIDIA Open Model License. Based on Moshi by"
        " Kyutai, CC BY 4.0; the weights were changed.",
    ),
    "kyutai/moshika-rl-seamless": (
        "cc-by-nc-4.0",
        "Based on moshika-rl-seamless by Kyutai, CC BY-NC 4.0: no commercial use; the weights were"
        " changed.",
    ),
    "kyutai/personaplex-rl-seamless": (
        "other",
        "Based on personaplex-rl-seamless by Kyutai, CC BY-NC 4.0: no commercial use. Licensed by"
        " NVIDIA Corporation under the NVIDIA Open Model License. The weights were changed.",
    ),
}

_UNKNOWN_TERMS = (
    "The base model is not one that moshi-jax knows: its licence, and the notices that it asks"
    " for, have to be stated here before this is published."
)


@dataclass(frozen=True)
class Change:
    """How far the bytes of a release are from those of its base.

    Attributes:
      share: of all values, those that are not the same in bfloat16.
      median_steps: median distance of those, in units of bfloat16's last place.
    """

    share: float
    median_steps: float

    @property
    def text(self) -> str:
        """A sentence, a warning if the release hardly differs."""
        said = (
            f"{self.share:.2%} of the values differ from the base in bfloat16"
            f" (median {self.median_steps:g} units in the last place)"
        )
        if self.share >= ENOUGH:
            return said
        return (
            f"warning: only {said}, expected at least {ENOUGH:.0%}: rounding has undone most of the"
            " training; release float32 (--dtypes float32), and evaluate what you release"
        )


def visible_change(weights: Source, base: Source) -> Change:
    """Compares two models as bfloat16, one tensor at a time.

    Raises:
      ConversionError: they do not have the same tensors.
    """
    if set(weights.tensors) != set(base.tensors):
        different = sorted(set(weights.tensors) ^ set(base.tensors))
        raise ConversionError(
            [f"has not the tensors of the base: {', '.join(different[:5])}"], subject="release"
        )
    # Distances up to 255 are counted one by one; the last bin holds all above.
    counts = np.zeros(256, np.int64)
    for key in weights.tensors:
        steps = np.abs(_ordered(weights.read(key)) - _ordered(base.read(key)))
        counts += np.bincount(np.minimum(steps, 255).reshape(-1), minlength=256)
    total, moved = int(counts.sum()), int(counts[1:].sum())
    median = int(np.searchsorted(np.cumsum(counts[1:]), moved / 2)) + 1 if moved else 0
    return Change(moved / total if total else 0.0, float(median))


def _ordered(values: np.ndarray) -> np.ndarray:
    """bfloat16 values as integers of the same order, neighbours one apart; both zeros are 0."""
    import ml_dtypes

    bits = values.astype(ml_dtypes.bfloat16).view(np.int16).astype(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


def change_against(weights: Source, base: str | os.PathLike[str]) -> Change:
    """`visible_change` against the language model of a checkpoint."""
    origin = read_configs(base)
    with open_source(origin, "moshi", abstract_params(origin.lm)) as stored:
        return visible_change(weights, stored)


def model_card(
    *, base_model: str | None, run: Path | None, change: Change | None, title: str
) -> str:
    """The `README.md` of a release.

    Args:
      base_model: the repository that training started from, such as `kyutai/moshiko-pytorch-bf16`.
      run: folder of the training run, with its `config.json` and `metrics.jsonl`.
      change: how far the weights are from the base.
      title: name of the release.

    Raises:
      ConversionError: the run folder is not one.
    """
    license_id, notice = terms(base_model)
    head = ["---", f"license: {license_id}", "library_name: moshi", "tags: [speech, full-duplex]"]
    if base_model:
        head.append(f"base_model: {base_model}")
    body = [
        *head,
        "---",
        "",
        f"# {title}",
        "",
        "Made with moshi-jax (JAX), for Kyutai's runtimes.",
        "",
    ]
    body += ["## Licence", "", notice, ""]
    if base_model:
        body += ["## Base model", "", f"[{base_model}](https://huggingface.co/{base_model})", ""]
    if run is not None:
        body += training_summary(run)
    if change is not None:
        body += ["## Weights", "", change.text.capitalize() + ".", ""]
    return "\n".join(body)


def terms(base_model: str | None) -> tuple[str, str]:
    """Licence and notice of a release, by the longest known name that its base begins with."""
    known = [name for name in _TERMS if base_model and base_model.startswith(name)]
    if known:
        return _TERMS[max(known, key=len)]
    if base_model and base_model.startswith("kyutai/moshi"):
        return _TERMS["kyutai/moshi"]
    return (
        "other",
        _UNKNOWN_TERMS,
    )


def training_summary(run: Path) -> list[str]:
    """Settings and last metrics of a run as markdown lines.

    Raises:
      ConversionError: there is no run, or its files are broken.
    """
    try:
        settings = json.loads((run / "config.json").read_text())
        lines = (run / "metrics.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        if not isinstance(settings, dict) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("expected JSON objects")
    except (OSError, ValueError) as error:
        problem = f"not a training run ({error}), expected its config.json and metrics.jsonl"
        raise ConversionError([problem], subject=str(run)) from error
    text = ["## Training", "", f"{len(rows)} logged steps. Settings:", "", "```json"]
    text += [json.dumps(settings, indent=2), "```", ""]
    names = [name for name, value in (rows[-1] if rows else {}).items() if _is_number(value)]
    if names:
        text += ["| metric | first | last |", "|---|---|---|"]
        text += [f"| {name} | {_cell(rows[0], name)} | {_cell(rows[-1], name)} |" for name in names]
        text.append("")
    return text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:.6g}" if _is_number(row.get(name)) else "–"


def write_hashes(folder: Path) -> None:
    """Writes `SHA256SUMS` of all files, as `sha256sum -c` checks it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]
    (folder / HASHES_NAME).write_text("".join(lines))


def check_hashes(folder: Path, files: Mapping[str, Path]) -> None:
    """Compares files with `SHA256SUMS` beside them, and with the hash that the hub's cache names.

    Args:
      folder: where the list is, if there is one.
      files: the files that will be used.

    Raises:
      ConversionError: naming every file that is not what its hash says.
    """
    listed = _listed(folder / HASHES_NAME)
    problems = []
    for path in sorted({path for path in files.values() if path.is_file()}):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
        expected = listed.get(name, _hash_in_cache(path))
        if expected is not None and (got := digest(path)) != expected:
            problems.append(f"{name} has sha256 {got[:12]}..., expected {expected[:12]}...")
    if problems:
        raise ConversionError([*problems, "fetch these files again"], subject=str(folder))


def _listed(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    rows = [line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip()]
    if any(len(row) != 2 or len(row[0]) != 64 for row in rows):
        raise ConversionError(["not a list of sha256 and file names"], subject=str(path))
    return {name.lstrip("*").strip(): value.lower() for value, name in rows}


def _hash_in_cache(path: Path) -> str | None:
    """The hub's cache calls large files by their sha256, and links to them."""
    blob = path.resolve()
    is_hash = len(blob.name) == 64 and set(blob.name) <= set("0123456789abcdef")
    return blob.name if path.is_symlink() and blob.parent.name == "blobs" and is_hash else None


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
