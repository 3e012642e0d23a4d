"""The embedded codec: its card says what was measured, and measuring again gives the same."""

import json
from pathlib import Path

import pytest

import moshi_jax.nano
from recipes.nano.codec import load_codec
from recipes.nano.quality import Quality, detection, round_trip, stream

FOLDER = Path(moshi_jax.nano.__file__).parent
FIGURES = ("vad_agreement", "vad_recall", "vad_false_alarm")


@pytest.fixture(scope="module")
def measured():
    return json.loads((FOLDER / "codec_quality.json").read_text())


def test_the_card_says_what_was_measured(measured):
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line[:2] == "| "]
    for start, name, speaker in (
        ("| agent, on the frame grid", "on_grid", "agent"),
        ("| agent, beginning anywhere", "anywhere", "agent"),
        ("| user", "on_grid", "user"),
    ):
        (row,) = [row for row in rows if row.startswith(start)]
        found = measured[name]["speakers"][speaker]
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        assert cells == [
            f"{found['utterances']} / {found['words']}",
            *(f"{100 * found[figure]:.1f} %" for figure in FIGURES),
            f"{found['level']:.2f}",
            f"{found['word_error_original']:.3f}",
            f"{found['word_error_round_trip']:.3f}",
        ]


def test_both_voices_are_heard_where_they_speak(measured):
    for speaker in measured["on_grid"]["speakers"].values():
        assert speaker["vad_agreement"] >= 0.98


@pytest.mark.slow
def test_the_agent_measured_again(measured):
    mimi, params = load_codec(FOLDER)
    assert mimi.config.num_codebooks == 4 and mimi.config.quantizer.bins == 256
    pcm, _ = stream(Quality(folder=FOLDER), "agent")
    found = detection(pcm, round_trip(mimi, params, pcm, 4))
    before = measured["on_grid"]["speakers"]["agent"]
    assert {name: found[name] for name in (*FIGURES, "level")} == pytest.approx(
        {name: before[name] for name in (*FIGURES, "level")}, abs=0.004
    )
