"""Work on all cores of this process."""

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]) -> Iterator[_Result]:
    """The function's results in the order of its arguments, by one thread for each core.

    No more results than cores are held, so memory does not grow with the number of arguments. SciPy's sparse products
    gain by it: they do not hold Python's global lock.
    """
    threads = cores()
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
