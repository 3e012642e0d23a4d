"""Recordings to tokens: the streams are those of a live session, and nothing bad passes."""

import json

import jax
import numpy as np
import pytest

import moshi_jax.pretrain.encode as module
from convert import load_mimi
from mimi_jax import encode, read_audio
from moshi_jax.pretrain import EncodeConfig, encode_corpus
from moshi_jax.pretrain.encode import codec_fingerprint
from moshi_jax.pretrain.tokens import read_folder


def config(corpus, checkpoint, folder, **other):
    return EncodeConfig(
        source=corpus, destination=folder, checkpoint=checkpoint, shard_recordings=2, **other
    )


def test_streams_are_text_agent_and_user_of_each_recording(tokens, corpus, checkpoint):
    folder = read_folder(tokens)
    entries = {entry.name: entry for entry in folder.entries}
    assert sorted(entries) == ["one.wav", "three.wav", "two.wav"]
    assert [entries[n].num_frames for n in ("one.wav", "two.wav", "three.wav")] == [60, 40, 12]
    streams = folder.read(entries["two.wav"])
    pcm = read_audio(corpus.parent / "two.wav", sample_rate=24_000, channels=2)
    mimi, params = load_mimi(checkpoint)
    codes = jax.jit(lambda x: encode(mimi, params, x))(pcm)
    np.testing.assert_array_equal(streams[1:], np.concatenate(np.asarray(codes)))
    # "abc" at 2 ms: its four pieces from frame 2 on, the frame before marked, then padding.
    assert streams[0, 1] == 0 and (streams[0, 2:6] > 3).all() and set(streams[0, 6:]) == {3}


def test_what_cannot_be_used_is_named(tokens):
    summary = json.loads((tokens / "summary.json").read_text())
    reasons = {bad["name"]: bad["reason"] for bad in summary["bad_files"]}
    assert sorted(reasons) == ["mute.wav", "odd.wav"]
    assert "no .json with alignments" in reasons["mute.wav"]
    assert "cannot hold" in reasons["odd.wav"] and "xyz" in reasons["odd.wav"]


def test_a_run_that_was_killed_goes_on(tokens, corpus, checkpoint, tmp_path, monkeypatch):
    """The second run encodes only what the first has not, and the result is the same."""
    encode_group, seen = module._Encoder.__call__, []

    def fail_later(self, recordings):
        seen.extend(recording.name for recording in recordings)
        if len(seen) > 2:
            raise KeyboardInterrupt
        return encode_group(self, recordings)

    monkeypatch.setattr(module._Encoder, "__call__", fail_later)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(config(corpus, checkpoint, tmp_path / "again", batch=1))
    assert not (tmp_path / "again").exists()
    first = list(seen)
    monkeypatch.setattr(
        module._Encoder,
        "__call__",
        lambda self, recordings: (
            seen.extend(r.name for r in recordings) or encode_group(self, recordings)
        ),
    )
    encode_corpus(config(corpus, checkpoint, tmp_path / "again", batch=1))
    assert not set(first[:2]) & set(seen[len(first) :])
    old, new = read_folder(tokens), read_folder(tmp_path / "again")
    assert new.entries == old.entries and new.format == old.format
    for one, other in zip(old.entries, new.entries, strict=True):
        np.testing.assert_array_equal(old.read(one), new.read(other))


def test_nothing_that_can_be_used_is_an_error(checkpoint, corpus, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps({"path": str(corpus.parent / "mute.wav")}))
    with pytest.raises(ValueError, match=r"got no recording that can be used of 1 \(first .*mute"):
        encode_corpus(config(tmp_path / "data.jsonl", checkpoint, tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="expected a folder written by"):
        read_folder(tmp_path)


def test_the_fingerprint_of_a_codec_is_that_of_its_codes(small):
    def scaled(*wanted):
        def leaf(path, value):
            names = [getattr(key, "key", None) for key in path]
            return value * 2 if set(wanted) <= set(names) else value

        return codec_fingerprint(jax.tree_util.tree_map_with_path(leaf, small.mimi_params))

    before = codec_fingerprint(small.mimi_params)
    assert scaled("decoder") == scaled("quantizer", "output_projection") == before
    for heard in (("encoder",), ("quantizer", "input_projection"), ("quantizer", "codebooks")):
        assert scaled(*heard) != before
