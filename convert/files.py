"""Where the files of a checkpoint are, and under which names a release has them.

Keys and default names: `CheckpointInfo` in moshi 0.2.13 (`loaders.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from convert.architecture import says_architecture
from convert.errors import ConversionError
from convert.foreign import is_transformers
from convert.hub import is_hub, local_file
from convert.layouts import CODEC_PREFIX, layout_of
from convert.shards import INDEX_SUFFIX, open_weights

CONFIG_NAME = "config.json"
MOSHI_NAME = "model.safetensors"
MERGED_NAME = "consolidated.safetensors"  # a whole model as moshi-finetune writes it
ADAPTERS_NAME = "lora.safetensors"
MIMI_NAMES = (
    "tokenizer-e351c8d8-checkpoint125.safetensors",
    "mimi-pytorch-e351c8d8@125.safetensors",  # the same bytes, in newer repositories
)
DEFAULT_NAMES: dict[str, str | None] = {
    "moshi_name": MOSHI_NAME,
    "mimi_name": MIMI_NAMES[0],
    "mimi_config_name": None,
    "tokenizer_name": "tokenizer_spm_32k_3.model",
}


@dataclass(frozen=True)
class Files:
    """The files of a checkpoint by their keys in `config.json`.

    Attributes:
      names: what a release of it calls them; None for what it does not have.
      paths: where they are; without an entry for what is optional and not there.
    """

    names: dict[str, str | None]
    paths: dict[str, Path]


def find_files(folder: Path, raw: Mapping[str, Any]) -> tuple[Files, list[str]]:
    """The files of a folder with this `config.json`, and what is wrong with their names."""
    names = {key: raw.get(key, name) for key, name in DEFAULT_NAMES.items()}
    paths: dict[str, Path] = {}
    problems = []
    for key, name in names.items():
        if name is None and DEFAULT_NAMES[key] is None:
            continue
        if isinstance(name, str) and is_hub(name):
            try:
                paths[key] = local_file(name)
                names[key] = paths[key].name
            except ConversionError as error:
                problems += [f"{CONFIG_NAME} {key} {name}: {text}" for text in error.problems]
            continue
        path = PurePosixPath(str(name))
        outside = "://" in str(name) or path.is_absolute() or ".." in path.parts
        if not isinstance(name, str) or not path.name or outside:
            problems.append(
                f"{CONFIG_NAME} {key} is {name!r}, expected a file inside the folder; "
                "fetch that file, put it there and name it"
            )
            names[key] = DEFAULT_NAMES[key]
            continue
        paths[key] = folder / name
    if problems:
        return Files(names, paths), problems
    _find_unnamed(folder, raw, Files(names, paths))
    return Files(names, paths), _only_adapters(folder, paths["moshi_name"])


def _find_unnamed(folder: Path, raw: Mapping[str, Any], files: Files) -> None:
    """What the config does not name: other names in use, an index, or nothing at all."""
    names, paths = files.names, files.paths
    if "moshi_name" not in raw and not _there(paths["moshi_name"]) and _there(folder / MERGED_NAME):
        paths["moshi_name"] = folder / MERGED_NAME
    if raw.get("quantize"):
        names["moshi_name"] = MOSHI_NAME
    for key in ("moshi_name", "mimi_name"):
        paths[key] = weights_path(paths[key])
    if not says_architecture(raw):
        return  # whoever publishes weights alone publishes all of them
    if "mimi_name" not in raw:
        there = [name for name in MIMI_NAMES if (folder / name).is_file()]
        if there:
            names["mimi_name"], paths["mimi_name"] = there[0], folder / there[0]
        elif is_transformers(raw) and raw.get("model_type") == "moshi":
            paths["mimi_name"] = paths["moshi_name"]  # the codec is in the same file
        else:
            names["mimi_name"] = None
            del paths["mimi_name"]
    if "tokenizer_name" not in raw and not paths["tokenizer_name"].is_file():
        names["tokenizer_name"] = None
        del paths["tokenizer_name"]


def _only_adapters(folder: Path, moshi: Path) -> list[str]:
    if _there(moshi) or not (folder / ADAPTERS_NAME).is_file():
        return []
    return [
        f"holds adapters only ({ADAPTERS_NAME}): give them with their base model,"
        " `moshi-jax convert fuse BASE ADAPTERS DST`, or load them with load_lora"
    ]


def file_alone(path: Path) -> Files:
    """A single weights file as a checkpoint of one part."""
    with open_weights(path) as file:
        names = set(file.tensors)
    codec = layout_of(names) == "mimi" or any(name.startswith("quantizer.") for name in names)
    key = "mimi_name" if codec else "moshi_name"
    whole = any(name.startswith(CODEC_PREFIX) for name in names)  # transformers: both in one file
    keys = ("moshi_name", "mimi_name") if whole else (key,)
    released = {key: DEFAULT_NAMES[key] if key in keys else None for key in DEFAULT_NAMES}
    return Files(released, dict.fromkeys(keys, path))


def weights_path(path: Path) -> Path:
    """The file, or in its absence the index of the files that it was split into."""
    index = path.with_name(path.name + INDEX_SUFFIX)
    return index if index.is_file() and not path.is_file() else path


def _there(path: Path) -> bool:
    return weights_path(path).is_file()
