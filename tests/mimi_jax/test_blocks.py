import jax
import numpy as np
import pytest

from mimi_jax import BlockCodec, encode
from mimi_jax.blocks import check_codes, check_pcm

FRAME = 8


@pytest.fixture(scope="module")
def blocks(small):
    return BlockCodec(small.mimi, small.params, batch=2, block_frames=4)


def joined(pieces, axis=-1):
    return [np.concatenate(row, axis) for row in zip(*pieces, strict=True)]


def signal(samples, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, samples).astype(np.float32)


def test_blocks_of_ragged_signals_are_the_whole_signals_alone(small, blocks):
    """Lengths that end inside a frame, inside a block and one block before the other signal."""
    long, short = signal(10 * FRAME + 3), signal(4 * FRAME - 1, seed=1)
    pieces = [np.split(long, [1, 30, 31]), [short]]
    codes = joined(blocks.encode(pieces))
    assert [row.shape for row in codes] == [(3, 11), (3, 4)]
    alone = small.compiled(encode)
    for row, whole in zip(codes, (long, short), strict=True):
        np.testing.assert_array_equal(row, alone(whole[None])[0])

    audio = joined(blocks.decode([np.split(codes[0], [2], axis=1), [codes[1]]]))
    assert [len(row) for row in audio] == [11 * FRAME, 4 * FRAME]
    (apart,) = joined(blocks.decode([[codes[1]]]))
    np.testing.assert_allclose(audio[1], apart, atol=1e-6)


def test_an_hour_takes_the_memory_and_the_program_of_a_minute(small):
    """3,000 frames: the same buffers live after every block, one program a direction."""
    codec = BlockCodec(small.mimi, small.params, block_frames=100)
    frames, live = 0, set()
    for (codes,) in codec.encode([(signal(FRAME * 50, seed=i) for i in range(60))]):
        frames += codes.shape[1]
        live.add(sum(array.nbytes for array in jax.live_arrays()))
    assert frames == 3_000
    assert len(live) == 1
    assert codec._encode._cache_size() == 1


def test_nothing_in_gives_nothing_out(blocks):
    assert list(blocks.encode([[]])) == list(blocks.decode([[], []])) == []


@pytest.mark.parametrize(
    "pcm, message",
    [
        (np.array([0.1, np.nan, np.inf, 0.2], np.float32), "got 2 NaN or infinite.*first at 1"),
        (np.array([3, -20_000], np.float32), "got samples up to 20000.*divide 16-bit"),
        (np.array([3, -20_000], np.int16), r"got PCM int16\[2\], expected one channel"),
        (np.zeros((2, 8), np.float32), r"got PCM float32\[2, 8\].*pick a channel"),
    ],
)
def test_what_is_not_audio_is_refused(blocks, pcm, message):
    with pytest.raises(ValueError, match=message):
        check_pcm(pcm)
    with pytest.raises(ValueError, match=message):
        list(blocks.encode([[pcm]]))


def test_silence_and_clipped_audio_are_audio():
    for pcm in (np.zeros(7), np.full(9, -1.0), np.array([1.3, -1.4])):
        assert check_pcm(pcm).dtype == np.float32


@pytest.mark.parametrize(
    "codes, message",
    [
        (np.zeros((2, 3), np.float32), r"got codes float32\[2, 3\], expected integers"),
        (np.zeros(3, int), r"got codes int64\[3\], expected integers \[codebooks, frames\]"),
        (np.zeros((5, 3), int), "got 5 codebooks, expected 1 to 4"),
        (np.array([[0, 7]]), "codes span 0 to 7, expected 0 to 6"),
        (np.array([[0, -1]]), "codes span -1 to 0"),
    ],
)
def test_what_are_not_codes_is_refused(blocks, codes, message):
    with pytest.raises(ValueError, match=message):
        check_codes(codes, bins=7, most=4)
    with pytest.raises(ValueError, match=message):
        list(blocks.decode([[codes]]))


def test_more_signals_than_rows_and_pieces_of_two_shapes_are_refused(blocks):
    with pytest.raises(ValueError, match="got 3 signals, expected at most 2, the batch"):
        list(blocks.encode([[], [], []]))
    pieces = [np.zeros((2, 1), int), np.zeros((3, 1), int)]
    with pytest.raises(ValueError, match=r"a piece has \(3,\) values a frame, expected \(2,\)"):
        list(blocks.decode([pieces]))


def test_a_codec_of_no_rows_is_refused(small):
    with pytest.raises(ValueError, match="got batch 0 and block_frames 4"):
        BlockCodec(small.mimi, small.params, batch=0, block_frames=4)
