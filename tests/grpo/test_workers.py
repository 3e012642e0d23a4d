"""Work in several processes: all done, whatever becomes of a process."""

import os

import pytest

from grpo.workers import WorkerDied, run_all


def square(number):
    if number == 5:
        os._exit(11)  # as a crash of a C library does
    return number * number


def where(_):
    return os.getpid()


def fail(number):
    raise ValueError(f"bug {number}")


@pytest.mark.slow
def test_a_process_that_dies_takes_only_its_own_item_with_it():
    results = dict(run_all(square, range(12), workers=2))
    assert isinstance(results.pop(5), WorkerDied)
    assert results == {n: n * n for n in range(12) if n != 5}


@pytest.mark.slow
def test_the_work_is_shared():
    processes = set(dict(run_all(where, range(20), workers=2)).values())
    assert os.getpid() not in processes
    assert 1 <= len(processes) <= 2


def test_one_worker_is_this_process():
    assert dict(run_all(where, range(3), workers=1)) == dict.fromkeys(range(3), os.getpid())
    assert list(run_all(where, [], workers=4)) == []


def test_what_the_work_raises_ends_the_run():
    with pytest.raises(ValueError, match="bug 0"):
        list(run_all(fail, range(3), workers=1))
