"""Codes on disk: one array with what is needed to decode it, as npz or safetensors."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from layers_jax import atomic_path
from mimi_jax import MimiConfig

__all__ = ["CODE_SUFFIXES", "CodeHeader", "read_codes", "read_header", "write_codes"]

CODE_SUFFIXES = {".npz", ".safetensors"}
_KEY = "mimi_codes"


@dataclass(frozen=True)
class CodeHeader:
    """What the codes are of.

    Attributes:
      sample_rate, frame_rate, bins: of the codec.
      num_codebooks: K.
      num_samples: length of the audio at `sample_rate`; the last frame may reach beyond.
    """

    sample_rate: int
    frame_rate: float
    bins: int
    num_codebooks: int
    num_samples: int

    @classmethod
    def of(cls, config: MimiConfig, num_samples: int) -> "CodeHeader":
        """The header of audio of that length, encoded by this codec."""
        return cls(
            sample_rate=config.sample_rate,
            frame_rate=config.frame_rate,
            bins=config.quantizer.bins,
            num_codebooks=config.num_codebooks,
            num_samples=num_samples,
        )


def write_codes(path: Path, codes: Int[np.ndarray, "C K T"], header: CodeHeader) -> None:
    """Writes codes of C channels, completely or not at all."""
    dtype = np.int16 if header.bins <= 2**15 else np.int32
    kept = np.ascontiguousarray(codes, dtype)  # safetensors writes memory as it lies
    described = json.dumps(asdict(header))
    with atomic_path(path) as temporary:
        if path.suffix == ".npz":
            with open(temporary, "wb") as file:
                np.savez(file, codes=kept, mimi_codes=np.array(described))
        else:
            save_file({"codes": kept}, temporary, {_KEY: described})


def read_header(path: Path) -> CodeHeader:
    """The header alone; errors as `read_codes`."""
    return _read(path, codes=False)[1]


def read_codes(path: Path) -> tuple[Int[np.ndarray, "C K T"], CodeHeader]:
    """Codes [C, K, T] int32 and their header.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a file that `write_codes` wrote.
    """
    codes, header = _read(path, codes=True)
    assert codes is not None
    if codes.ndim != 3 or codes.shape[1] != header.num_codebooks:
        raise ValueError(
            f"{path} has codes {list(codes.shape)}, expected [channels, {header.num_codebooks}, "
            "frames] as its header says; encode the audio again"
        )
    return codes.astype(np.int32), header


def _read(path: Path, *, codes: bool) -> tuple[np.ndarray | None, CodeHeader]:
    if not path.is_file():
        raise FileNotFoundError(f"cannot read {path}: got no file there, expected codes")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                described, array = str(file[_KEY]), file["codes"] if codes else None
        else:
            with safe_open(path, "numpy") as file:
                described = (file.metadata() or {})[_KEY]
                array = file.get_tensor("codes") if codes else None
        return array, CodeHeader(**json.loads(described))
    except (KeyError, ValueError, TypeError, OSError, SafetensorError) as error:
        raise ValueError(
            f"{path} is not a file of codes ({error}), expected one that `moshi-jax codec encode` "
            "wrote"
        ) from error
