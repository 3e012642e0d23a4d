"""Two channels as one recording."""

import numpy as np
import pytest

from grpo.corpora import AudioRef, Recording, Word
from grpo.corpora.pcm import DecodedPcm
from grpo.corpora.recording import TwoChannelPcm, checked_words

soundfile = pytest.importorskip("soundfile")


def two(first, second, rates=(8000, 8000)):
    parts = [DecodedPcm(pcm, rate) for pcm, rate in zip((first, second), rates, strict=True)]
    return TwoChannelPcm("name", (parts[0], 0), (parts[1], 0), two_files=True)


def ramp(samples, start=0.0):
    return (start + np.arange(samples, dtype=np.float32))[None]


def test_two_files_are_one_recording():
    recording = two(ramp(1000), ramp(900, 5000.0))
    assert (recording.sample_rate, recording.num_samples) == (8000, 1000)
    part = recording.read(850, 100)
    np.testing.assert_array_equal(part[0], np.arange(850, 950))
    np.testing.assert_array_equal(part[1], [*range(5850, 5900), *[0] * 50])  # and then silence


def test_blocks_are_the_whole_in_order():
    recording = two(ramp(1000), ramp(1000))
    blocks = list(recording.blocks(0.04))
    assert [block.shape[1] for block in blocks] == [320, 320, 320, 40]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1)[0], np.arange(1000))
    with pytest.raises(ValueError, match="name: got no samples"):
        list(two(ramp(0), ramp(0)).blocks(1.0))


def test_files_that_cannot_be_one_conversation():
    with pytest.raises(ValueError, match=r"differ by 0\.62 s, expected at most 0\.5 s"):
        two(ramp(10_000), ramp(5_000))
    with pytest.raises(ValueError, match="got 8000 and 16000 Hz"):
        two(ramp(100), ramp(100), (8000, 16000))
    with pytest.raises(ValueError, match="got 100 Hz, expected 4000"):
        two(ramp(100), ramp(100), (100, 100))
    with pytest.raises(ValueError, match=r"got 2 channel\(s\), expected 1"):
        two(np.zeros((2, 100), np.float32), ramp(100))


def test_samples_that_are_not_finite_are_refused_where_they_are_met():
    pcm = ramp(1000)
    pcm[0, 700] = np.inf
    recording = two(ramp(1000), pcm)
    assert recording.read(0, 700).shape == (2, 700)
    with pytest.raises(ValueError, match="the first at channel 1 sample 700"):
        recording.read(650, 100)


def test_one_file_has_to_have_two_channels(tmp_path):
    soundfile.write(tmp_path / "mono.wav", np.zeros(100), 8000)
    soundfile.write(tmp_path / "three.wav", np.zeros((100, 3)), 8000)
    for name, found in (("mono", 1), ("three", 3)):
        ref = AudioRef(tmp_path / f"{name}.wav")
        recording = Recording(name=name, channels=((ref, 0), (ref, 1)))
        assert not recording.two_files
        with pytest.raises(ValueError, match=rf"{name}: got {found} channel"), recording.open():
            pytest.fail("not reached")


def test_words_are_sorted_and_checked():
    words = [Word("b", 2.0, 3.0), Word("a", 1.0, 1.0)]
    assert checked_words(words) == words[::-1]
    for start_s, end_s in ((-0.1, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="expected 0 <= start <= end"):
            checked_words([Word("bad", start_s, end_s)])
