import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rewards import extract_silero, vad

WEIGHTS = Path(vad.__file__).with_name("silero_vad_16k.safetensors")


def field(number, payload):
    """One length-delimited protobuf field."""
    assert len(payload) < 128
    return bytes([number << 3 | 2, len(payload)]) + payload


def test_reads_initializers_of_an_onnx_file(tmp_path):
    values = np.arange(6, dtype=np.float32)
    tensor = (
        bytes([1 << 3, 2, 1 << 3, 3])  # dims, one varint each
        + bytes([2 << 3, 1])  # data_type
        + field(8, b"some.weight")
        + field(9, values.tobytes())
    )
    other = field(1, b"node") + bytes([9 << 3 | 5]) + b"four" + bytes([9 << 3 | 1]) + b"eightlet"
    graph = other + field(5, tensor)
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes([1 << 3, 0x96, 0x01]) + field(7, graph) + field(2, b"pytorch"))
    tensors = extract_silero.onnx_tensors(file)
    assert list(tensors) == ["some.weight"]
    np.testing.assert_array_equal(tensors["some.weight"], values.reshape(2, 3))


def test_a_missing_wheel_is_an_error(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install silero-vad"):
        extract_silero.wheel_file()


@pytest.mark.parity
def test_the_bundled_weights_are_those_of_the_wheel(tmp_path, monkeypatch):
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed")
    out = tmp_path / "weights.safetensors"
    monkeypatch.setattr("sys.argv", ["extract_silero", str(out)])
    extract_silero.main()
    assert out.read_bytes() == WEIGHTS.read_bytes()


@pytest.mark.parity
def test_the_wheels_own_safetensors_file_holds_other_weights():
    if importlib.util.find_spec("silero_vad") is None:
        pytest.skip("silero-vad is not installed")
    wheel = load_file(extract_silero.wheel_file("silero_vad_16k.safetensors"))
    ours = load_file(WEIGHTS)["lstm.input"].T
    assert wheel["lstm_cell.weight_ih"].shape == ours.shape
    assert np.abs(wheel["lstm_cell.weight_ih"] - ours).max() > 0.01
