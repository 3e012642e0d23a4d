"""The codec's frame at its released size, compiled for a device that is not here."""

import pytest

from bench.compiled_codec import compile_codec
from mimi_jax import mimi_24khz


@pytest.mark.slow
def test_a_frame_moves_hardly_more_than_weights_and_state():
    pytest.importorskip("libtpu")
    row = compile_codec(mimi_24khz(8), "v5e:1x1")
    # 96 M values less the 24 codebooks that eight-codebook sessions do not use.
    assert 300e6 < row.weight_bytes < 4 * 96_151_393
    assert row.state_bytes == pytest.approx(4 * 4_120_198, rel=1e-3)
    assert row.bytes_ratio <= 1.1
    assert row.aliases_state and row.ring_copies == []
    assert not row.double_precision and row.host_transfers == 0
