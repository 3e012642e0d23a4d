"""What a model wrote, in place of a transcript of what it said.

The text says what the model meant to say. What it said may be something else: a policy rewarded by
its text can learn to write well and mumble. Where its voice cannot be recognised, as that of a very
small model, there is nothing else to read.
"""

from collections.abc import Sequence

from rewards.intervals import UTTERANCE_GAP_S

Said = tuple[float, str]

_WORD_START = "\u2581"  # SentencePiece writes a space as this


def text_stream_words(pieces: Sequence[str | None], *, frame_s: float) -> list[Said]:
    """Words of a text stream, each at the frame of its first piece.

    Args:
        pieces: one a frame, a space or `\u2581` before a word's first; None or "" for padding.
        frame_s: length of a frame.

    Returns:
        Start in seconds and text of each.
    """
    found: list[tuple[float, list[str]]] = []
    for frame, piece in enumerate(pieces):
        if not piece:
            continue
        if piece[0] in (" ", _WORD_START) or not found:
            found.append((frame * frame_s, []))
        found[-1][1].append(piece)
    said = ((at, "".join(part).replace(_WORD_START, " ").strip()) for at, part in found)
    return [(at, text) for at, text in said if text]


def utterances_of_words(
    words: Sequence[tuple[str, float, float]], gap_s: float = UTTERANCE_GAP_S
) -> list[Said]:
    """Utterances of a transcript: a new one after more than `gap_s` without a word.

    Args:
        words: text, start and end in seconds, by start.
        gap_s: longest silence inside an utterance.

    Returns:
        Start in seconds and words of each.
    """
    found: list[tuple[float, list[str]]] = []
    end_s = float("-inf")
    for text, start_s, until_s in words:
        if start_s - end_s > gap_s:
            found.append((start_s, []))
        found[-1][1].append(text)
        end_s = until_s
    return [(at, " ".join(texts)) for at, texts in found]
