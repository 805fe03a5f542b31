"""Splits a log of any size once: `python -m trainers.prepare --data=DIR --out=OUT --engine=duckdb`.

OUT is a prepared data set: shards of users in Parquet files, which `trainers.main --data=OUT` takes. Many runs can
share it, and none of them reads the log again. The engine works out of core, so the log need not fit in memory.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from absl import flags

from trainers.setting_flags import define_flags as define_settings
from trainers.setting_flags import given_flags, settings_from_flags
from vae_cf_tf.cli import commands
from vae_cf_tf.data import prepared
from vae_cf_tf.data.load import load_split
from vae_cf_tf.engines import log
from vae_cf_tf.engines import prepare as engines
from vae_cf_tf.engines.base import ENGINES
from vae_cf_tf.errors import UserError
from vae_cf_tf.say import Say, print_line
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.settings import names

SECTIONS = ("data", "split")
MEMORY = "memory"
"""The engine that reads and splits the log in this process' memory, as trainers.main does."""
_DEFAULT = engines.Options()


def define_flags() -> None:
    define_settings(*SECTIONS)
    commands.define_path("out", "", "Folder to write; it must not exist yet, or be empty.")
    flags.DEFINE_enum(
        "engine",
        "duckdb",
        [*ENGINES, MEMORY],
        "duckdb: out of core on this machine. spark: a cluster, or this machine. memory: the log must fit in memory; "
        "it alone has --split_by=permutation, which the papers have. The others have --split_by=hash.",
    )
    flags.DEFINE_string("memory", "", "Memory that the engine may use, such as 4GB; empty: the engine's own default.")
    flags.DEFINE_integer("shard_users", prepared.SHARD_USERS, "Users in a shard.", lower_bound=1)
    flags.DEFINE_string("spark_master", "local[*]", "With --engine=spark: the URL of the master.")


def main(argv: list[str]) -> None:
    commands.required(["out"], "python -m trainers.prepare --data=FILE_OR_FOLDER --out=FOLDER")
    values = flags.FLAGS
    options = engines.Options(values.engine, values.memory, values.shard_users, values.spark_master)
    # The engines do not keep the order of the log, so their default is --split_by=hash.
    defaults = {} if values.engine == MEMORY else {"split_by": "hash"}
    prepare(settings_from_flags(defaults, *SECTIONS), Path(values.out), options, given_flags(*SECTIONS))


def prepare(
    settings: Settings,
    out: Path,
    options: engines.Options = _DEFAULT,
    given: frozenset[str] = frozenset(),
    say: Say = print_line,
) -> dict[str, Any]:
    """Writes a prepared data set, whole or not at all, and returns its manifest.

    Args:
      settings: those of data and split are used.
      out: the folder to make.
      options: of the engine and of the shards.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, data that is split already, or an `out` that holds something.
    """
    if settings.data.data and not log.is_url(settings.data.data):
        log.files_of(settings.data.data)
    done = "Wrote"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        found = engines.finished(settings, out, options)
        if found is None:
            raise UserError(f"{out} exists and is not empty. Give another --out, or remove it first.")
        manifest, done = found, "Found"
    elif options.engine == MEMORY:
        manifest = in_memory(settings, out, options, given, say)
    else:
        manifest = engines.prepare(settings, out, options, say)
    say(
        f"{done} {out}: {manifest['users']:,} users, {manifest['items']:,} items, {manifest['interactions']:,} "
        f"interactions; fingerprint {manifest['fingerprint']}. Train on it with --data={out}."
    )
    return manifest


def in_memory(
    settings: Settings, out: Path, options: engines.Options, given: frozenset[str], say: Say
) -> dict[str, Any]:
    """`prepare` of a log that is read into memory, by any protocol of `vae_cf_tf.data.split`."""
    split = load_split(settings, say, given)
    with engines.made_aside(settings, out, options, say) as work:
        folder = work / "out"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        prepared.write_split(split, folder, options.shard_users)
        protocol = {name: settings[name] for name in names("split")}
        job = engines.claimed_job(work)
        return prepared.finish(folder, protocol, split.about, options.shard_users, MEMORY, job)


def run() -> int:
    return commands.run(main, define_flags, groups=lambda: {"Data and split": names(*SECTIONS)})


if __name__ == "__main__":
    sys.exit(run())
