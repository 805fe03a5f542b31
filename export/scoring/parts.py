"""The parts of a scoring job: which rows go into a request, and a part from its first row to its last."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from export.scoring import event_log, history_files, job, recommendation_files
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.files import written_aside

if TYPE_CHECKING:
    from export.scoring import loaded_model
else:
    loaded_model = LazyModule("export.scoring.loaded_model")

_CELLS = 1 << 20  # histories × length of the longest list of ids


class Scoring(NamedTuple):
    """What the parts of a job are made of. It can be sent to another process."""

    folder: Path
    described: job.Job
    source: "event_log.EventLog | history_files.HistoryFile"
    user_types: tuple[pa.DataType, ...]  # as in `Survey`
    version: Path
    items: int  # size of the version's catalogue
    batch_size: int
    has_rules: bool


class PartMaker:
    """Makes parts in a growing order of their numbers, with one model and one pass over the input.

    A request holds rows of one part only. So a part's scores depend neither on the other parts nor on the process that
    makes it: the last bits of a score depend on the number of rows in its request.
    """

    def __init__(self, scoring: Scoring):
        self._scoring = scoring
        self._ask, self._size = loaded_model.recommender(
            scoring.version, scoring.items, scoring.batch_size, scoring.has_rules, scoring.described["k"]
        )
        self._rows, self._position = scoring.source.rows(), 0

    def make(self, number: int, answered: Callable[[int], None] = lambda rows: None) -> int:
        """Writes part `number` and returns its rows; `answered` is told of the rows of each request."""
        scoring, part_rows = self._scoring, self._scoring.described["part_rows"]
        skipped = number * part_rows - self._position
        next(itertools.islice(self._rows, skipped, skipped), None)
        self._position += skipped + part_rows
        kind, done = scoring.described["kind"], 0
        with (
            written_aside(job.part(scoring.folder, number, kind)) as aside,
            recommendation_files.Writer(aside, kind, scoring.user_types) as writer,
        ):
            for batch in requests(itertools.islice(self._rows, part_rows), self._size):
                writer.write([row.user for row in batch], *self._ask(batch))
                done += len(batch)
                answered(len(batch))
        return done


def requests(rows: Iterable[history_files.Row], size: int) -> Iterator[list[history_files.Row]]:
    """The rows in batches of at most `size` rows and _CELLS ids of a list, padding included."""
    batch: list[history_files.Row] = []
    longest = 1
    for row in rows:
        length = max(len(row.history), len(row.rules.candidates), len(row.rules.exclude), 1)
        longest = max(longest, length)
        if batch and (len(batch) == size or (len(batch) + 1) * longest > _CELLS):
            yield batch
            batch, longest = [], length
        batch.append(row)
    if batch:
        yield batch
