"""The Netflix Prize: a line `item:` stands before that item's lines `user,rating,date`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vae_cf_tf.data.events import TEXT, BadEvent, EventLog
from vae_cf_tf.data.formats.base import Format, ReaderOptions
from vae_cf_tf.data.formats.columns import Columns
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.progress import Progress
from vae_cf_tf.data.tables import parse
from vae_cf_tf.data.text import BAD_FILE, Chunks, first_line, line_fault, open_bytes, replaced, unreadable, user_errors
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say


class Netflix(Format):
    """The prize's own files, one for each movie, or the four that Kaggle makes of them."""

    accepts = "the Netflix Prize's mv_*.txt or combined_data_*.txt"
    has_column_names = False

    def sniff(self, path: Path) -> bool:
        return bool(re.fullmatch(r"\d+:\s*", first_line(path)[0]))

    def in_folder(self, folder: Path) -> list[Path]:
        patterns = ("mv_*.txt", "training_set/mv_*.txt", "combined_data_*.txt")
        return next((files for pattern in patterns if (files := sorted(folder.glob(pattern)))), [])

    def read(self, files: Sequence[Path], options: ReaderOptions, say: Say) -> Interactions:
        more = f" and {len(files) - 1:,} more files" if len(files) > 1 else ""
        say(f"Reading {files[0]}{more} of the Netflix Prize: ratings of {options.threshold:g} or more count.")
        for path in files:
            with user_errors(path), open_bytes(path) as f:
                if not re.match(rb"\d+:\s", f.read(32)):
                    raise UserError(
                        f"{path} does not start with a movie's line such as 1:; is it a Netflix Prize file?"
                    )
        try:
            return _read(files, options.needs_times, say)
        except (*BAD_FILE, BadEvent) as e:
            faults = (line_fault(path, _fault) for path in files)
            raise next(filter(None, faults), unreadable(files[0], e)) from e


def _read(files: Sequence[Path], with_times: bool, say: Say) -> Interactions:
    def chunks() -> Iterator[bytes]:
        for path in files:
            with open_bytes(path) as f:
                while chunk := f.read(1 << 20):
                    yield chunk
            yield b"\n"

    log = EventLog(in_order=True)
    item = None
    # With `1:` made `1:,,` every line has three columns.
    source = Chunks(replaced(chunks(), b":", b":,,"))
    types = {0: TEXT, 1: pa.float32()} | ({2: TEXT} if with_times else {})  # dates cost half of the time of the rest
    for users, ratings, *times in (b.columns for b in Progress(say).passed(parse(source, ",", 3, types, quoted=False))):
        codes = users.indices.to_numpy()
        is_item = pc.ends_with(users.dictionary, ":").to_numpy(zero_copy_only=False)
        starts = is_item[codes]
        ids = [name[:-1] for name in users.filter(pa.array(starts)).to_pylist()]
        ids.insert(0, ids[0] if item is None else item)  # the item that the block before left open
        item = ids[-1]
        encoded = pa.array(ids, pa.string()).dictionary_encode()
        rows = np.flatnonzero(~starts)
        if len(rows) == 0:
            continue
        users = pa.DictionaryArray.from_arrays(
            (np.cumsum(~is_item, dtype=np.int32) - 1)[codes[rows]], users.dictionary.filter(pa.array(~is_item))
        )
        items = encoded.indices.take(pa.array(np.cumsum(starts)[rows]))
        of_events = [column.take(pa.array(rows)) for column in (ratings, *times)]
        log.add(users, pa.DictionaryArray.from_arrays(items, encoded.dictionary), *of_events)
    return log.interactions()


def _fault(line: str) -> str | None:
    if re.fullmatch(r"\d+:\s*", line):
        return None
    fields = line.split(",")
    if ":" in line:
        return "it is neither an item's line such as 1: nor user,rating,date"
    if len(fields) != 3:
        return f"{len(fields)} columns where user,rating,date are expected"
    return Columns(("user", "item", "rating"), 0, 0, 1, header=False).fault(fields)
