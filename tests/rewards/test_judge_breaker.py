import pytest

from rewards.judge.breaker import Breaker


class Time:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def time():
    return Time()


def test_it_opens_after_failures_in_a_row(time):
    breaker = Breaker(failures=3, cooldown_s=10, clock=time)
    for outcome in (breaker.fail, breaker.fail, breaker.succeed, breaker.fail, breaker.fail):
        outcome()
        assert (breaker.is_open, breaker.wait_s()) == (False, 0.0)
    breaker.fail()
    assert (breaker.is_open, breaker.wait_s()) == (True, 10)
    time.now = 9.0
    assert breaker.wait_s() == 1.0


def test_one_call_probes_and_decides(time):
    breaker = Breaker(failures=1, cooldown_s=10, clock=time)
    breaker.fail()
    time.now = 10.0
    assert breaker.wait_s() == 0.0
    breaker.begin()
    assert breaker.wait_s() > 0  # a second call is not let through
    breaker.fail()
    assert breaker.wait_s() == 10
    time.now = 20.0
    breaker.begin()
    breaker.succeed()
    assert (breaker.is_open, breaker.wait_s()) == (False, 0.0)


def test_a_probe_that_was_given_up_frees_its_place(time):
    breaker = Breaker(failures=1, cooldown_s=10, clock=time)
    breaker.fail()
    time.now = 11.0
    breaker.begin()
    breaker.abandon()
    assert (breaker.is_open, breaker.wait_s()) == (True, 0.0)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="a breaker with 0 failures"):
        Breaker(failures=0)
    with pytest.raises(ValueError, match="-1 s of rest"):
        Breaker(cooldown_s=-1)
