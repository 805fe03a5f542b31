"""Work on several cores."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")
_MOST = 4  # threads: each holds the memory of a call


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]) -> Iterator[_Result]:
    """Yields the function's results in the order of its arguments, computed by one thread per core, at most _MOST.

    No more results than threads are held, so memory does not grow with the number of arguments. SciPy's sparse products
    become faster, since they release Python's global lock. OMP_NUM_THREADS limits the threads, as it does in NumPy. If
    the caller stops early, running calls are waited for and waiting ones are cancelled.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(cores(), _MOST, max(1, int(limit)) if limit.isdecimal() else _MOST)
    with futures.ThreadPoolExecutor(threads) as pool:
        running: collections.deque[futures.Future[_Result]] = collections.deque()
        try:
            for argument in arguments:
                running.append(pool.submit(function, argument))
                if len(running) == threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for future in running:
                future.cancel()
