import threading

import pytest

from convert.ahead import ahead


def test_values_come_in_order_from_another_thread():
    makers = set()

    def values():
        for i in range(100):
            makers.add(threading.get_ident())
            yield i

    assert list(ahead(values(), lambda value: 1, 3)) == list(range(100))
    assert threading.get_ident() not in makers and len(makers) == 1


def test_no_more_than_was_allowed_is_waiting():
    made, behind = 0, []

    def values():
        nonlocal made
        for i in range(50):
            made += 1
            yield i

    for taken, _ in enumerate(ahead(values(), lambda value: 10, 30)):
        behind.append(made - taken)
    assert max(behind) <= 3 + 2  # those waiting, the one taken, the one being made


def test_what_goes_wrong_there_is_raised_here():
    def values():
        yield 1
        raise KeyError("there")

    taken = []
    with pytest.raises(KeyError, match="there"):
        for value in ahead(values(), lambda value: 1, 5):
            taken.append(value)
    assert taken == [1]


def test_leaving_early_ends_the_thread():
    before = threading.active_count()
    closed = []

    def values():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    some = ahead(values(), lambda value: 1, 2)
    assert next(some) == 0
    some.close()
    assert threading.active_count() == before
