import json

import pytest

from rewards import Dialogue, Scored, TurnTakingConfig, read_dialogues, score_file

ENTRIES = [
    {"name": "quick", "axis": "turn", "duration_s": 14, "agent": [[6.5, 11]], "user_turn_end_s": 7},
    {"axis": "turn", "duration_s": 14, "user": [[0, 7]]},
    {"axis": "pause", "duration_s": 6, "agent": [[3, 5.5]]},
]


@pytest.mark.parametrize("layout", ["list", "lines"])
def test_scores_a_json_list_and_json_lines(tmp_path, layout):
    file = tmp_path / "dialogues.json"
    lines = "\n\n".join(json.dumps(entry) for entry in ENTRIES) + "\n"
    file.write_text(lines if layout == "lines" else json.dumps(ENTRIES, indent=1))
    early = {"rule": "early", "onset_s": 6.5, "delay_s": 0.5}
    no_label = {"rule": "no label user_turn_end_s"}
    takeover = {"rule": "takeover", "onset_s": 3.0, "longest_s": 2.5}
    assert score_file(file) == [
        Scored("quick", "turn", {"turn_taking": -0.5}, {"turn_taking": early}),
        Scored("2", "turn", {"turn_taking": None}, {"turn_taking": no_label}),
        Scored("3", "pause", {"pause_handling": -1.0}, {"pause_handling": takeover}),
    ]


def test_configs_reach_the_rules(tmp_path):
    file = tmp_path / "dialogues.jsonl"
    file.write_text(json.dumps(ENTRIES[0]))
    scored = score_file(str(file), {"turn_taking": TurnTakingConfig(early="clamp")})
    assert scored[0].rewards == {"turn_taking": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no entry"),
        ("[]", "has no entry"),
        ("[{]", "not JSON"),
        ('{"axis": "pause", "duration_s": 6}\n{', "line 2 is not JSON"),
        ("3", "entry 1: 3 is not an object"),
        ('{"duration_s": 6}', "entry 1: axis is None, expected the name of an axis"),
        ('{"axis": "bc", "duration_s": 6}', "entry 1: no reward for axis 'bc'"),
        ('{"axis": "pause"}', "entry 1: field 'duration_s' is missing"),
        (
            '[{"axis": "pause", "duration_s": 6}, {"axis": "pause", "duration": 6}]',
            "entry 2: unknown field 'duration'",
        ),
    ],
)
def test_errors_name_file_and_entry(tmp_path, text, message):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        score_file(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        score_file(tmp_path / "none.json")


def test_a_binary_file_is_an_error(tmp_path):
    file = tmp_path / "audio.wav"
    file.write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(ValueError, match=r"audio.wav: not JSON"):
        score_file(file)


def test_dialogues_by_name(tmp_path):
    file = tmp_path / "dialogues.json"
    file.write_text(json.dumps(ENTRIES))
    dialogues = read_dialogues(file)
    assert list(dialogues) == ["quick", "2", "3"]
    assert dialogues["3"] == Dialogue(duration_s=6.0, agent=((3.0, 5.5),))
    file.write_text('[{"duration_s": 1, "agent": [[2, 1]]}]')
    with pytest.raises(ValueError, match="entry 1: agent has interval"):
        read_dialogues(file)
    file.write_text("[3]")
    with pytest.raises(ValueError, match="entry 1: 3 is not an object"):
        read_dialogues(file)
