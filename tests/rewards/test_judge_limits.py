import asyncio

import pytest

from rewards.judge.limits import Bucket, Budget, Usage


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(
    ("amounts", "ends"),
    [
        ([1] * 60, [100.0] * 60),  # a minute's worth at once
        ([1] * 62, [100.0] * 60 + [101.0, 102.0]),  # then one a second
        ([40, 40, 40], [100.0, 120.0, 160.0]),
        ([500, 1], [100.0, 101.0]),  # more than there ever is: all of it
    ],
)
def test_a_rate_makes_calls_wait(amounts, ends):
    time = Time()
    bucket = Bucket(60, clock=time, sleep=time.sleep)
    seen = []
    for amount in amounts:
        asyncio.run(bucket.take(amount))
        seen.append(time.now)
    assert seen == pytest.approx(ends)


def test_no_rate_and_no_sense():
    time = Time()
    asyncio.run(Bucket(None, clock=time, sleep=time.sleep).take(1e9))
    assert time.now == 100.0
    with pytest.raises(ValueError, match="a rate is 0 per minute"):
        Bucket(0)


@pytest.mark.parametrize(
    ("budget", "used", "allowed"),
    [
        (Budget(), Usage(10**9, 10**12), True),
        (Budget(max_calls=3), Usage(2, 0), True),
        (Budget(max_calls=3), Usage(3, 0), False),
        (Budget(max_tokens=100), Usage(99, 99), True),
        (Budget(max_tokens=100), Usage(0, 100), False),
    ],
)
def test_budget(budget, used, allowed):
    assert budget.allows(used) is allowed
