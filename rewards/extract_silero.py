"""Re-create `silero_vad_16k.safetensors` from an installed silero-vad 6.2.3 wheel.

    python -m rewards.extract_silero OUT.safetensors

The wheel's own `silero_vad_16k.safetensors` holds other weights than the network silero-vad runs,
so the tensors are read out of `silero_vad_16k_op15.onnx`. An ONNX file is one protobuf message; the
few fields needed here do not justify a dependency on onnx. The wheel is located without being
imported, because importing it imports torch.
"""

import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

ONNX_FILE = "silero_vad_16k_op15.onnx"

# Field numbers in onnx.proto: ModelProto.graph, GraphProto.initializer, three of TensorProto.
_GRAPH, _INITIALIZER, _DIMS, _NAME, _RAW_DATA = 7, 5, 1, 8, 9


def wheel_file(name: str = ONNX_FILE) -> Path:
    """Locate a data file of the installed silero-vad wheel.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("silero-vad is not installed: pip install silero-vad==6.2.3")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: pip install silero-vad==6.2.3")
    return path


def _varint(buffer: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = buffer[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def _fields(buffer: memoryview) -> Iterator[tuple[int, Any]]:
    """Yield (field number, value) of one protobuf message: a varint as int, the rest as bytes."""
    at = 0
    while at < len(buffer):
        key, at = _varint(buffer, at)
        if key & 7 == 0:
            value, at = _varint(buffer, at)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, at = _varint(buffer, at)
        else:
            size = {1: 8, 5: 4}[key & 7]
        yield key >> 3, buffer[at : at + size]
        at += size


def onnx_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read every float32 initializer of an ONNX file."""
    tensors = {}
    for model_field, graph in _fields(memoryview(path.read_bytes())):
        for graph_field, tensor in _fields(graph) if model_field == _GRAPH else ():
            if graph_field != _INITIALIZER:
                continue
            entries = list(_fields(tensor))
            values = dict(entries)
            shape = [value for field, value in entries if field == _DIMS]
            tensors[bytes(values[_NAME]).decode()] = np.frombuffer(
                values[_RAW_DATA], np.float32
            ).reshape(shape)
    return tensors


def convert(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Turn PyTorch layouts into those of `rewards.vad`; the two biases of the LSTM are added."""
    basis = tensors["model.stft.forward_basis_buffer"][:, 0]  # 129 real rows, then 129 imaginary
    # A real signal has no imaginary part at DC and Nyquist: those two rows are zero.
    if basis[[129, 257]].any():
        raise ValueError("expected zero imaginary rows at DC and Nyquist: not the silero-vad STFT")
    params = {"stft.basis": np.delete(basis, [129, 257], axis=0).T}
    for layer in range(4):
        prefix = f"model.encoder.{layer}.reparam_conv"
        params[f"encoder.{layer}.kernel"] = tensors[f"{prefix}.weight"].transpose(2, 1, 0)
        params[f"encoder.{layer}.bias"] = tensors[f"{prefix}.bias"]
    params["lstm.input"] = tensors["model.decoder.rnn.weight_ih"].T
    params["lstm.hidden"] = tensors["model.decoder.rnn.weight_hh"].T
    params["lstm.bias"] = (
        tensors["model.decoder.rnn.bias_ih"] + tensors["model.decoder.rnn.bias_hh"]
    )
    params["output.kernel"] = tensors["model.decoder.decoder.2.weight"][0, :, 0]
    params["output.bias"] = tensors["model.decoder.decoder.2.bias"][0]
    return {name: np.ascontiguousarray(value) for name, value in params.items()}


def main() -> None:
    """Write the converted weights to the file named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m rewards.extract_silero OUT.safetensors")
    source = wheel_file()
    provenance = {
        "source": f"silero-vad 6.2.3, {ONNX_FILE}",
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "license": "MIT, Copyright (c) 2020-present Silero Team",
    }
    metadata = {"provenance": json.dumps(provenance)}
    Path(sys.argv[1]).write_bytes(save(convert(onnx_tensors(source)), metadata))


if __name__ == "__main__":
    main()
