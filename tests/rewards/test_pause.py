from rewards import Dialogue, PauseConfig, pause_handling


def dialogue_of(agent, duration_s=6.0):
    return Dialogue.from_dict({"duration_s": duration_s, "agent": agent})


def test_chopped_speech_escapes_only_the_literal_unit():
    chopped = dialogue_of([[2.0, 2.8], [2.95, 3.7], [3.85, 4.6]])
    assert pause_handling(chopped, PauseConfig(unit="ipu")).value == 0.0
    assert pause_handling(chopped, PauseConfig(unit="run")).value == -1.0
    assert pause_handling(chopped, PauseConfig(unit="run", run_gap_s=0.1)).value == 0.0


def test_long_speech_outside_the_segment_is_not_seen():
    assert pause_handling(dialogue_of([[-9.0, -0.1], [6.0, 9.0]])).value == 0.0


def test_carried_over_speech_is_clipped_before_it_is_joined():
    # 0.1 s of silence ends at 0.05: counted from the carried-over part the run would be 1.3 s.
    assert pause_handling(dialogue_of([[-0.3, -0.05], [0.05, 1.0]])).value == 0.0


def test_any_number_of_short_backchannels_is_allowed():
    assert (
        pause_handling(dialogue_of([[t, t + 0.5] for t in (0.0, 1.0, 2.0, 3.0, 4.0)])).value == 0.0
    )


def test_the_limit_is_a_limit_of_time_not_of_floats():
    intervals = [[sample / 16000, (sample + 16000) / 16000] for sample in range(100, 70_000, 333)]
    assert any(end - start > 1.0 for start, end in intervals)  # by rounding alone
    assert all(pause_handling(dialogue_of([interval])).value == 0.0 for interval in intervals)
    assert pause_handling(dialogue_of([[0.5, 1.5 + 1 / 16000]])).value == -1.0  # one sample more


def test_what_the_rule_saw():
    assert pause_handling(dialogue_of([])).facts["rule"] == "silent"
    facts = pause_handling(dialogue_of([[0.5, 1.0], [2.0, 4.5]])).facts
    assert facts == {"rule": "takeover", "onset_s": 2.0, "longest_s": 2.5}
    assert pause_handling(dialogue_of([[0.5, 1.0]])).facts["rule"] == "short"
