"""Work on all cores."""

import itertools
import threading

import pytest

from vae_cf_tf import threads


@pytest.fixture(autouse=True)
def _without_limit(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_results_come_in_the_order_of_the_arguments_from_all_cores(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 3)
    together = threading.Barrier(3, timeout=60)  # passed by three calls at once

    def square(n):
        together.wait()
        return n * n

    assert list(threads.map_in_order(square, range(9))) == [n * n for n in range(9)]


def test_no_more_arguments_are_taken_than_there_are_cores(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 2)
    taken = []
    results = threads.map_in_order(lambda n: n, (taken.append(n) or n for n in itertools.count()))
    assert next(results) == 0
    assert taken == [0, 1]
    results.close()
    assert taken == [0, 1]


def test_an_error_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(threads.map_in_order(lambda n: 1 // n, [1, 0, 2]))
    assert list(threads.map_in_order(str, [])) == []


@pytest.mark.parametrize(("limit", "at_once"), [("1", 1), ("2", 2), ("64", 4), ("2,1", 4), ("0", 1)])
def test_the_number_of_threads_is_limited(limit, at_once, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    taken = []
    results = threads.map_in_order(lambda n: n, (taken.append(n) or n for n in itertools.count()))
    next(results)
    results.close()
    assert len(taken) == at_once
