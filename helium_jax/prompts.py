"""What a PersonaPlex session begins with: a voice, a role in words, and silence after each.

Until the user is heard, the agent's channel carries the voice prompt or silence, the user's channel
a sine tone, and text is padding or, one token a frame, the role. Source: `step_system_prompts` and
the constants beside it in moshi/models/lm.py, `wrap_with_system_tags` in moshi/offline.py, both of
NVIDIA/personaplex.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helium_jax.config import MoshiConfig
from helium_jax.text import PAD

# Mimi's codes of silence and of a tone (440 Hz, amplitude 0.5), first eight codebooks.
SILENCE_CODES = (948, 243, 1178, 546, 1736, 1030, 1978, 2008)
SINE_CODES = (430, 1268, 381, 1611, 1095, 1495, 56, 472)
SILENCE_FRAMES = 6  # int(0.5 s * 12.5 Hz), after the voice and after the role
SYSTEM_TAG = "<system>"  # opens and closes: the model was trained with the same tag at both ends


@dataclass(frozen=True)
class Voice:
    """What a model had been fed when a voice prompt ended, kept in place of its recording.

    Attributes:
      embeddings: [N, D] summed input embeddings of positions 0 to N - 1.
      cache: [K, C] int32, token ring of the reference after them (column p mod C is position p).
    """

    embeddings: np.ndarray
    cache: np.ndarray


def wrap_system_text(text: str) -> str:
    """The role between system tags, as it was in training; empty text stays empty."""
    text = text.strip()
    if not text or (text.startswith(SYSTEM_TAG) and text.endswith(SYSTEM_TAG)):
        return text
    return f"{SYSTEM_TAG} {text} {SYSTEM_TAG}"


def prompt_frames(
    config: MoshiConfig,
    voice_codes: np.ndarray | None = None,
    text_tokens: Sequence[int] = (),
    *,
    silence: Sequence[int] = SILENCE_CODES,
    sine: Sequence[int] = SINE_CODES,
    silence_frames: int = SILENCE_FRAMES,
) -> np.ndarray:
    """Everything before the first frame of the user, ready for `prefill`.

    Args:
      config: of a model that runs in PersonaPlex's timing.
      voice_codes: [V, Q] codes of the voice prompt; None where a `Voice` stands for them.
      text_tokens: tokens of the role; without any, its phase is left out (the reference fails).
      silence: codes of a silent agent.
      sine: codes of the user's tone.
      silence_frames: frames of silence after the voice, and after the role.

    Returns:
      [T, K] int32: text, agent and user of each call, T = V + silence + tokens + silence.

    Raises:
      ValueError: a token is not one of the model's, or the model has not this many codebooks.
    """
    agent, user = config.num_agent_codebooks, config.num_user_codebooks
    for what, codes, count in (("silence", silence, agent), ("sine", sine, user)):
        if len(codes) != count:
            raise ValueError(
                f"{what} has {len(codes)} codes, expected {count}: the published prompts are for "
                "models that speak and hear with 8 codebooks each"
            )
    voice = np.zeros((0, agent), np.int32) if voice_codes is None else np.asarray(voice_codes)
    if voice.ndim != 2 or voice.shape[1] != agent:
        raise ValueError(f"voice_codes are {list(voice.shape)}, expected [V, {agent}]")
    quiet = np.broadcast_to(np.asarray(silence, np.int32), (silence_frames, agent))
    role = np.broadcast_to(np.asarray(silence, np.int32), (len(text_tokens), agent))
    spoken = np.concatenate([voice, quiet, role, quiet])
    text = np.full(len(spoken), PAD, np.int32)
    start = len(voice) + silence_frames
    text[start : start + len(text_tokens)] = text_tokens
    tone = np.broadcast_to(np.asarray(sine, np.int32), (len(spoken), user))
    frames = np.concatenate([text[:, None], spoken, tone], axis=1).astype(np.int32)
    check_tokens(config, frames, "prompt")
    return frames


def check_tokens(config: MoshiConfig, frames: np.ndarray, what: str) -> None:
    """Refuses tokens that no table has a row for: a gather would answer with another's row.

    Args:
      config: of the model.
      frames: [..., K] text, agent and user tokens; -1 (unknown) is allowed.
      what: name of them in the error.

    Raises:
      ValueError: naming the stream, the token and where it is.
    """
    cards = np.array([config.text_card, *[config.card] * config.n_q])[: frames.shape[-1]]
    wrong = np.argwhere((frames < -1) | (frames > cards))
    if len(wrong):
        at = tuple(wrong[0])
        stream = "text" if at[-1] == 0 else f"codebook {at[-1] - 1}"
        raise ValueError(
            f"{what} has {frames[at]} as {stream} of frame {at[-2]}, expected -1 (unknown) to "
            f"{cards[at[-1]]}; use the codec and the tokenizer that were published with the model"
        )
