"""A recording: weights, inputs and outputs of a reference run in one safetensors file.

Tensors are named `weights/<released name>`, `inputs/...` and `expected/<run>/...`; the header holds
the model's config and the provenance as JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convert.safetensors_io import SafetensorsFile
from layers_jax.attention import RingRule


@dataclass(frozen=True)
class Recording:
    """One file.

    Attributes:
      path: the file.
      config: the model's config as the reference takes it.
      provenance: what ran, with which options.
      tensors: inputs and expected outputs.
      weights: parameters under their released names.
      adapters: LoRA factors under the names of moshi-finetune, if there are any.
    """

    path: Path
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]
    weights: Mapping[str, np.ndarray]
    adapters: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """File name without its ending: what `--only` selects by."""
        return self.path.stem

    @property
    def ring(self) -> RingRule:
        """Whose ring rule the reference that ran has."""
        return "personaplex" if str(self.provenance.get("ran", "")).startswith("fork") else "kyutai"

    @property
    def runs(self) -> set[str]:
        """Names of the recorded runs."""
        parts = [key.split("/") for key in self.tensors if key.startswith("expected/")]
        return {part[1] for part in parts if len(part) > 2}

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Recorded outputs that belong to no run."""
        under = self._under("expected/")
        return {name: value for name, value in under.items() if "/" not in name}

    def expected(self, run: str) -> dict[str, np.ndarray]:
        """Outputs of one run."""
        return self._under(f"expected/{run}/")

    def inputs(self, run: str) -> dict[str, np.ndarray]:
        """Inputs of one run."""
        return self._under(f"inputs/{run}/")

    def _under(self, prefix: str) -> dict[str, np.ndarray]:
        return {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}


def read_recording(path: Path) -> Recording:
    """Reads a file.

    Raises:
      ValueError: it is not a recording.
    """
    with SafetensorsFile(path) as file:
        arrays = {key: file.read(key) for key in file.tensors}
        try:
            config = json.loads(file.metadata["config"])
            provenance = json.loads(file.metadata["provenance"])
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} has no readable {error} in its header, expected a recording with JSON "
                "'config' and 'provenance'; name recordings with --only"
            ) from error
    weights, adapters, tensors = {}, {}, {}
    for key, value in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "weights":
            weights[name] = value
        elif kind == "lora_weights":
            adapters[name] = value
        else:
            tensors[key] = value
    return Recording(path, config, provenance, tensors, weights, adapters)
