from rewards.judge import Case, Turn, build_case

USER = [(0.0, "hello there"), (5.0, "how are"), (6.5, "you today")]
AGENT = [(2.0, "hi"), (3.0, "nice to meet you"), (8.0, "fine thanks"), (10.0, "and you")]


def test_utterances_of_one_side_in_a_row_are_one_turn():
    assert build_case(USER, AGENT, reply_start_s=8.0) == Case(
        (
            Turn("user", "hello there"),
            Turn("model", "hi nice to meet you"),
            Turn("user", "how are you today"),
        ),
        "fine thanks and you",
    )


def test_what_the_user_says_after_the_onset_is_not_history():
    case = build_case([*USER, (9.0, "great")], AGENT, reply_start_s=8.0)
    assert case == build_case(USER, AGENT, reply_start_s=8.0)


def test_no_response_is_an_empty_reply():
    case = build_case(USER, AGENT[:2], reply_start_s=None)
    assert case.reply == ""
    assert [turn.speaker for turn in case.history] == ["user", "model", "user"]


def test_order_and_empty_texts_do_not_matter():
    shuffled = build_case(USER[::-1], [(4.0, " "), *AGENT[::-1]], reply_start_s=8.0)
    assert shuffled == build_case(USER, AGENT, reply_start_s=8.0)
