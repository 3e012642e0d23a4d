import math

import pytest

from rewards import Outcome, missing


def test_missing_says_why():
    assert missing("no label") == Outcome(None, {"rule": "no label"})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="expected a finite number or None"):
        Outcome(value)
