"""Writes a made-up log of users with known tastes: `python -m trainers.generate --communities=64 --out=log.csv`.

Each user belongs to one community, and a community prefers a few genres and has favourites within them. So the number
of communities is the number of clusters that a mixture prior may find. `--data` of any run takes the file. Without a
flag the log is the embedded data set.

With `--parts` it writes a folder of Parquet files of any size instead. Their users have no tastes: such a log is for
measuring time and memory.
"""

import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from absl import flags

from vae_cf_tf.cli import commands
from vae_cf_tf.data.progress import Pace
from vae_cf_tf.data.synthetic import synthetic_events, synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside
from vae_cf_tf.say import print_line


def define_flags() -> None:
    commands.define_path(
        "out", "", "CSV file to write, plain or .gz, with the columns user_id and item_id; with --parts, a folder."
    )
    flags.DEFINE_integer(
        "parts", 0, "With n > 0: a folder of n Parquet files, users without tastes. Any size fits in memory.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer("users", 6_000, "Users of the log.", lower_bound=1)
    flags.DEFINE_integer("items", 1_500, "Items of the catalogue.", lower_bound=10)
    flags.DEFINE_integer("communities", 12, "Communities of users.", lower_bound=1)
    flags.DEFINE_float("mean_items", 40.0, "Mean number of a user's items, about.", lower_bound=5)
    flags.DEFINE_float(
        "own_taste", 0.7, "How much users of a community differ in the genres that they prefer; 0: not at all.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer("seed", 0, "Seed of the log: the same numbers and seed give the same log.", lower_bound=0)


def main(argv: list[str]) -> None:
    commands.required(["out"], "python -m trainers.generate --communities=64 --out=log.csv")
    values, out = flags.FLAGS, Path(flags.FLAGS.out)
    if values.parts:
        write_parts(out, values.parts, values.users, values.items, round(values.users * values.mean_items), values.seed)
        return
    if not out.name.endswith((".csv", ".csv.gz")):
        raise UserError(f"--out takes a .csv or .csv.gz file. Received: {str(out)!r}.")
    log = synthetic_log(
        values.seed, values.users, values.items, values.communities, values.mean_items, values.own_taste
    )
    table = pd.DataFrame({"user_id": log.user_ids[log.users], "item_id": log.item_ids[log.items]})
    with written_aside(out) as aside:
        table.to_csv(aside, index=False, compression={"method": "gzip", "mtime": 0} if out.suffix == ".gz" else None)
    print(
        f"Wrote {out}: {len(log.users):,} events of {values.users:,} users in {values.communities:,} communities, "
        f"{values.items:,} items. Train on it with --data={out}."
    )


def write_parts(out: Path, parts: int, users: int, items: int, events: int, seed: int) -> None:
    """Writes a log without tastes as part-00000.parquet, … in the folder `out`. A part that is there already is kept,
    so the same command goes on after a kill."""
    out.mkdir(parents=True, exist_ok=True)
    pace = Pace(print_line)
    for part in range(parts):
        path = out / f"part-{part:05d}.parquet"
        if not path.exists():
            size = (part + 1) * events // parts - part * events // parts
            columns = synthetic_events(users, items, size, seed, part)
            with written_aside(path) as aside:
                pq.write_table(pa.table(dict(zip(("user_id", "item_id"), columns, strict=True))), aside)
        pace.told(f"{part + 1:,} of {parts:,} parts written …")
    print(f"Wrote {out}: {events:,} events, up to {users:,} users and {items:,} items. Prepare it with --data={out}.")


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
