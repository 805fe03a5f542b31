"""Writes a made-up log of users with known tastes: `python -m trainers.generate --communities=64 --out=log.csv`.

Each user belongs to one community, and a community prefers a few genres and has favourites within them. So the number
of communities is the number of clusters that a mixture prior may find. `--data` of any run takes the file. Without a
flag the log is the embedded data set.
"""

import sys
from pathlib import Path

import pandas as pd
from absl import flags

from vae_cf_tf.cli import commands
from vae_cf_tf.data.synthetic import synthetic_log
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside


def define_flags() -> None:
    commands.define_path("out", "", "CSV file to write, plain or .gz, with the columns user_id and item_id.")
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


def run() -> int:
    return commands.run(main, define_flags)


if __name__ == "__main__":
    sys.exit(run())
