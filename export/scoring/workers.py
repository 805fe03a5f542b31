"""Processes that make the parts of a scoring job between them, each with a model of its own."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

from export.scoring.parts import PartMaker, Scoring
from vae_cf_tf.cli import commands
from vae_cf_tf.errors import UserError
from vae_cf_tf.threads import cores

THREADS = "TF_NUM_INTRAOP_THREADS"


def make(scoring: Scoring, numbers: Sequence[int], workers: int) -> Iterator[int]:
    """Makes the parts `numbers` in `workers` processes; yields the rows of each when it is there.

    The processes share out the cores, unless TF_NUM_INTRAOP_THREADS is set. They end when this process ends, even if it
    is killed: each waits for the end of a pipe that only this process holds open.

    Raises:
      UserError: that of a process, or a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit TensorFlow's threads half
    theirs, ours = context.Pipe(duplex=False)
    arguments = (scoring, theirs, max(1, cores() // workers), commands.extensions())
    pool = ProcessPoolExecutor(workers, context, _begin, arguments)
    try:
        # A process takes the parts in this order, so that it reads forwards.
        for future in as_completed([pool.submit(_make, number) for number in numbers]):
            yield future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "A process of --workers was ended from outside, perhaps for lack of memory. The same command makes the "
            "parts that are missing; with fewer --workers it needs less memory."
        ) from error
    finally:
        ours.close()  # where parts are left, the processes end at once
        pool.shutdown(cancel_futures=True)


_scoring: Scoring
_maker: PartMaker | None = None


def _begin(scoring: Scoring, parent: Connection, threads: int, extensions: Sequence[str]) -> None:
    """Prepares a process. The model is loaded with the first part, since only `_make` can report a UserError."""
    global _scoring
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which tells the others
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ.setdefault(THREADS, str(threads))
    commands.import_extensions([f"--extension={name}" for name in extensions])
    _scoring = scoring


def _end_with(parent: Connection) -> None:
    parent.poll(None)
    os._exit(3)


def _make(number: int) -> int:
    global _maker
    _maker = _maker or PartMaker(_scoring)
    return _maker.make(number)
