import numpy as np
import pytest

from bench.peers import build_peer, missing_packages
from bench.peers.base import PEERS
from bench.peers.huggingface import rename
from bench.random_codec import noise_pcm, random_codec
from convert import export_mimi
from mimi_jax import mimi_24khz


def test_peers_are_named_and_their_packages_known(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"peer 'encodec' is unknown, expected some of moshi, "):
        missing_packages("encodec")
    monkeypatch.setitem(PEERS, "gone", (("no_such_package",), "bench.peers.gone"))
    assert missing_packages("gone") == ["no_such_package"]
    with pytest.raises(ImportError, match=r"peer gone needs no_such_package, which cannot be"):
        build_peer("gone", tmp_path / "w", num_codebooks=8, threads=1)


def test_released_names_become_those_of_transformers():
    layer, theirs = (
        "encoder_transformer.transformer.layers.0",
        "encoder.encoder_transformer.layers.0",
    )
    names = {
        "encoder.model.0.conv.conv.bias": "encoder.encoder_seanet.layers.0.conv.bias",
        "decoder.model.2.convtr.convtr.bias": "decoder.decoder_seanet.layers.2.conv.bias",
        "downsample.conv.conv.conv.weight": "encoder.downsample.conv.weight",
        "upsample.convtr.convtr.convtr.weight": "decoder.upsample.conv.weight",
        f"{layer}.linear1.weight": f"{theirs}.mlp.fc1.weight",
        f"{layer}.layer_scale_2.scale": f"{theirs}.mlp_layer_scale.scale",
        "quantizer.rvq_rest.vq.layers.30._codebook.embedding_sum": (
            "quantizer.acoustic_residual_vector_quantizer.layers.30.codebook.embed_sum"
        ),
        "quantizer.rvq_first.vq.layers.0._codebook._initialized": (
            "quantizer.semantic_residual_vector_quantizer.layers.0.codebook.initialized"
        ),
    }  # fmt: skip
    released = {name: np.full(1, index) for index, name in enumerate(names)}
    released[f"{layer}.self_attn.in_proj_weight"] = np.arange(24.0)[:, None]
    renamed = rename(released, num_heads=2)
    queries, keys, values = (
        renamed.pop(f"{theirs}.self_attn.{name}_proj.weight") for name in "qkv"
    )
    assert {name: released[old] for old, name in names.items()} == renamed
    assert queries.ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert keys.ravel().tolist() == [8, 10, 9, 11, 12, 14, 13, 15]
    assert values.ravel().tolist() == list(range(16, 24))


@pytest.mark.parity
@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_gives_our_codes_at_the_released_size(name, tmp_path):
    """130 frames, past the window of 10 s; a peer that only takes files gets the first second."""
    if missing := missing_packages(name):
        pytest.skip(f"{missing} not installed")
    from bench.codec_session import Ours

    config = mimi_24khz(8)
    mimi, params = random_codec(config)
    weights = export_mimi(tmp_path / "mimi.safetensors", config, params)
    peer, ours = build_peer(name, weights, num_codebooks=8, threads=1), Ours(mimi, params)
    frames = noise_pcm(130 * 1920).reshape(130, 1920)
    if not peer.streams:
        second = frames[:12].reshape(-1)
        np.testing.assert_array_equal(peer.encode_file(second), ours.encode_file(second))
        return
    peer.reset()
    codes = np.stack([ours.encode_frame(frame) for frame in frames])
    np.testing.assert_array_equal([peer.encode_frame(frame) for frame in frames], codes)
    theirs = np.stack([peer.decode_frame(frame) for frame in codes[:20]])
    heard = np.stack([ours.decode_frame(frame) for frame in codes[:20]])
    assert np.abs(heard - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert len(np.unique(codes)) > 200
