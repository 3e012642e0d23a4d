"""Runs an exported frame step: codec and language model, one frame a call.

Needs jax and numpy and none of the model's code; this very file travels with an export as `run.py`.
`python run.py FOLDER IN.npy OUT.npz` answers f32 samples [frames, sessions, samples].
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

OUTPUTS = ("pcm", "text", "codes", "valid")


class ExportedSession:
    """A batch of live conversations, as `DuplexSession`, out of an exported folder.

    Args:
      folder: what `moshi-jax export` made.
      seed: of all draws.
    """

    def __init__(self, folder: str | Path, seed: int = 0):
        folder = Path(folder)
        self.about: dict[str, Any] = json.loads((folder / "export.json").read_text())
        platform = jax.default_backend()
        if platform not in self.about["platforms"]:
            raise ValueError(
                f"{folder} was exported for {self.about['platforms']}, this machine has "
                f"{platform}; export it again with that platform"
            )
        self.batch: int = self.about["batch"]
        self._params = _read_params(folder / "params.bin", self.about["params"])
        programs = {
            name: jax.export.deserialize(bytearray((folder / f"{name}.bin").read_bytes()))
            for name in ("fresh", "step", "reset")
        }
        self._fresh = jax.jit(programs["fresh"].call)
        self._step = jax.jit(programs["step"].call, donate_argnums=1)
        self._reset = jax.jit(programs["reset"].call, donate_argnums=0)
        self._seed = np.int32(seed)
        self._state = self._fresh(self._seed)

    def step(self, pcm: np.ndarray, exec_mask: np.ndarray | None = None) -> dict[str, jax.Array]:
        """One frame of each user in, one frame of each agent out.

        Args:
          pcm: f32 samples [B, S] in [-1, 1].
          exec_mask: bool [B], the sessions that have a frame, all by default.

        Returns:
          pcm [B, S], text [B], codes [B, Q], valid [B] as `DuplexFrame` describes them.

        Raises:
          ValueError: `pcm` has not the shape [B, S].
        """
        expected = (self.batch, self.about["frame_samples"])
        if pcm.shape != expected:
            raise ValueError(f"a frame has shape {pcm.shape}, expected {expected}")
        mask = np.ones(self.batch, bool) if exec_mask is None else exec_mask
        self._state, out = self._step(self._params, self._state, pcm.astype(np.float32), mask)
        return dict(zip(OUTPUTS, out, strict=True))

    def reset(self, rows: np.ndarray) -> None:
        """Starts the sessions where `rows` [B] is True anew; nothing of their past remains."""
        self._state = self._reset(self._state, rows, self._seed)


def _read_params(path: Path, entries: list[dict[str, Any]]) -> list[jax.Array]:
    """The arrays of a file that holds them end to end, each put on the device as it is read."""
    raw = np.memmap(path, np.uint8, "r")
    params = []
    for entry in entries:
        dtype, shape = np.dtype(jax.numpy.dtype(entry["dtype"])), tuple(entry["shape"])
        size = int(np.prod(shape)) * dtype.itemsize
        values = raw[entry["at"] : entry["at"] + size].view(dtype).reshape(shape)
        params.append(jax.device_put(values))
    return params


def main(argv: list[str]) -> int:
    """`FOLDER IN.npy OUT.npz`: a session over recorded frames."""
    if len(argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    session = ExportedSession(argv[0])
    frames = [session.step(pcm) for pcm in np.load(argv[1])]
    pcm, text, codes, valid = (np.stack([frame[name] for frame in frames]) for name in OUTPUTS)
    np.savez(argv[2], pcm=pcm, text=text, codes=codes, valid=valid)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
