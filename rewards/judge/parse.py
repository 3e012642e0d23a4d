"""From a judge's words to a verdict: strictly, since a misread verdict is a false reward."""

import re

SCALE = (0, 1, 2)
"""The verdicts: unrelated or no real reply, loosely related, natural and grounded."""

_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
# A template that has opened the block already leaves the model only its end to write.
_REST_OF_THOUGHT = re.compile(r"^.*</think>", re.DOTALL)
_QUOTES = "\u2018\u2019\u201c\u201d\u00ab\u00bb"
_MARKUP = re.compile(rf"[*_`~\"'{_QUOTES}#{{}}\[\]()|]|\\boxed|</?[a-z]+>")
_NUMBER = re.compile(r"(?<![\w.,])[-+\u2212\u2013]?[0-9]+(?:[.,][0-9]+)?(?!\w|%|[.,][0-9])")
_LABELLED = re.compile(
    r"\b(?:score|rating)\b\s*(?:is\b|of\b|[:=])?\s*(?=[-+\u2212\u2013]?[0-9])", re.I
)
_OF_THE_SCALE = re.compile(r"\s*(?:/|out of)\s*2(?![\w.,/]*[0-9])")
_GOES_ON = re.compile(r"\s*(?:/|-|\u2013|or\b|to\b|and\b|,|%)\s*[0-9]|\s*%")


def parse_verdict(raw: str) -> int | None:
    """The verdict a judge wrote.

    Closed `<think>` blocks, quotes and markup are dropped. What counts is a lone 0, 1 or 2 (or
    2.0); else the number labelled "score" or "rating"; else the only number there is.

    Returns:
        0, 1 or 2, or None: nothing, several numbers, a fraction, a number off the scale, or a
        thought that was cut off. Never the first digit found.
    """
    text = _REST_OF_THOUGHT.sub("", _THOUGHT.sub("", raw))
    if "<think>" in text:
        return None
    text = _MARKUP.sub("", text).strip()
    labels = list(_LABELLED.finditer(text))
    if labels:
        verdicts = {_labelled(text[label.end() :]) for label in labels}
        return verdicts.pop() if len(verdicts) == 1 else None
    numbers = _NUMBER.findall(text)
    # A digit inside a word ("2nd") or a longer number ("1.2.3") is none of these numbers.
    if len(numbers) != 1 or len(re.findall(r"\d+(?:[.,]\d+)?", text)) != 1:
        return None
    return _on_scale(numbers[0])


def _labelled(text: str) -> int | None:
    """The number that a label is followed by."""
    found = _NUMBER.match(text)
    if found is None:
        return None
    rest = text[found.end() :]
    if _GOES_ON.match(rest) and not _OF_THE_SCALE.match(rest):
        return None  # "score: 1 or 2", "score: 1/5"
    return _on_scale(found[0])


def _on_scale(number: str) -> int | None:
    found = re.fullmatch(r"\+?([0-9])(?:[.,]0+)?", number)
    return int(found[1]) if found and int(found[1]) in SCALE else None
