import numpy as np
import pytest

from helium_jax import personaplex_7b, prompt_frames, wrap_system_text
from helium_jax.prompts import SILENCE_CODES, SINE_CODES, check_tokens

CONFIG = personaplex_7b()


@pytest.mark.parametrize(
    "text, wrapped",
    [
        ("You are kind.", "<system> You are kind. <system>"),
        ("  You are kind.\n", "<system> You are kind. <system>"),
        ("<system> You are kind. <system>", "<system> You are kind. <system>"),
        ("<system> You are kind.", "<system> <system> You are kind. <system>"),
        ("", ""),
        ("  ", ""),
    ],
)
def test_a_role_stands_between_two_equal_tags_once(text, wrapped):
    assert wrap_system_text(text) == wrapped


def test_the_phases_of_a_prompt():
    """Voice, six frames of silence, a token of the role a frame, six frames of silence."""
    voice = np.arange(24).reshape(3, 8)
    frames = prompt_frames(CONFIG, voice, [11, 12])
    assert frames.shape == (3 + 6 + 2 + 6, 17) and frames.dtype == np.int32
    assert frames[:, 0].tolist() == [3] * 9 + [11, 12] + [3] * 6
    np.testing.assert_array_equal(frames[:3, 1:9], voice)
    assert (frames[3:, 1:9] == SILENCE_CODES).all(), "the agent is silent ..."
    assert (frames[:, 9:] == SINE_CODES).all(), "... and the user a tone, throughout"


def test_an_empty_role_and_a_stored_voice_leave_their_phases_out():
    assert len(prompt_frames(CONFIG)) == 12
    assert len(prompt_frames(CONFIG, None, [5])) == 13


@pytest.mark.parametrize(
    "change, message",
    [
        ({"voice_codes": np.full((2, 8), 2049)}, r"prompt has 2049 as codebook 0 of frame 0, exp"),
        ({"voice_codes": np.full((2, 8), -2)}, r"prompt has -2 as codebook 0 of frame 0"),
        ({"voice_codes": np.zeros((2, 7))}, r"voice_codes are \[2, 7\], expected \[V, 8\]"),
        (
            {"text_tokens": [4, 32_001]},
            r"prompt has 32001 as text of frame 7, exp",
        ),
        ({"sine": [1, 2]}, r"sine has 2 codes, expected 8"),
    ],
)
def test_what_no_table_has_a_row_for_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        prompt_frames(CONFIG, **change)


def test_initial_and_unknown_tokens_are_tokens():
    frames = np.array([[-1] * 17, [32_000] + [2048] * 16])
    check_tokens(CONFIG, frames, "codes")
    with pytest.raises(ValueError, match=r"codes has 2049 as codebook 15 of frame 1"):
        check_tokens(CONFIG, frames + (frames == frames[1, 16]) * (np.arange(17) == 16), "codes")
