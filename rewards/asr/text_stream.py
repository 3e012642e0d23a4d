"""The model's own text tokens in place of a transcript: free, and only for smoke tests.

The text says what the model meant to say. What it said may be something else; a policy rewarded by
its text learns to write well and mumble.
"""

from collections.abc import Sequence

from rewards.intervals import UTTERANCE_GAP_S

Said = tuple[float, str]

_WORD_START = "\u2581"  # SentencePiece writes a space as this


def text_stream_utterances(
    pieces: Sequence[str | None], *, frame_s: float, start_s: float = 0.0
) -> list[Said]:
    """Utterances of a text stream: a new one after more than 1 s without a word.

    Args:
        pieces: one a frame; None for padding.
        frame_s: length of a frame.
        start_s: time of the first frame.

    Returns:
        Start in seconds and words of each.
    """
    found: list[tuple[float, list[str]]] = []
    last_s = float("-inf")
    for frame, piece in enumerate(pieces):
        if not piece:
            continue
        now_s = start_s + frame * frame_s
        if now_s - last_s > UTTERANCE_GAP_S + frame_s:
            found.append((now_s, []))
        found[-1][1].append(piece)
        last_s = now_s
    said = ((at, " ".join("".join(part).replace(_WORD_START, " ").split())) for at, part in found)
    return [(at, text) for at, text in said if text]
