"""The console command `vae-cf`: its first word names a command, the others are that command's own."""

import importlib
import importlib.util
import sys
from typing import NamedTuple

from vae_cf_tf.cli.console import unbreakable_streams
from vae_cf_tf.errors import did_you_mean


class Command(NamedTuple):
    """A subcommand: the module whose `run` carries it out, and what it does."""

    module: str
    summary: str


COMMANDS = {
    "train": Command("trainers.main", "Trains a model on a log, evaluates it and exports it."),
    "export": Command("export.main", "Writes a run's SavedModel as a new version."),
    "score": Command("export.score", "Recommends for a file of histories, without a server."),
    "recommend": Command("export.client", "Asks a TensorFlow Serving server for recommendations."),
    "report": Command("trainers.report", "Writes a page that shows a finished run."),
    "sweep": Command("trainers.sweep", "Trains one model for each point of a grid, and tabulates them."),
    "compare": Command("trainers.compare", "Compares finished runs on the same users, with intervals."),
    "prepare": Command("trainers.prepare", "Splits a log once, as a folder that any run can read."),
    "generate": Command("trainers.generate", "Writes a made-up log of users with known tastes."),
    "benchmark": Command("trainers.benchmark", "Times training steps against what the machine can do."),
    "inspect": Command("export.inspect", "Prints the card of an exported model."),
}


def help_text() -> str:
    """What `vae-cf --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    usage = ["Usage: vae-cf COMMAND [--NAME=VALUE …]", "", *lines, "", "vae-cf COMMAND --help lists a command's flags."]
    return "\n".join(usage)


def run() -> int:
    """Carries out the subcommand that the command line names; returns the exit status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        sys.argv = [f"vae-cf {name}", *arguments]
        return importlib.import_module(_main_module(COMMANDS[name].module)).run()
    with unbreakable_streams():
        if name in ("--help", "-h", "help"):
            print(help_text())
            return 0
        suggestion = did_you_mean(name, list(COMMANDS), "vae-cf {}")
        print(f"Error: There is no command {name!r}.{suggestion} (vae-cf --help lists them.)", file=sys.stderr)
        return 2


def _main_module(name: str) -> str:
    """The module that `python -m name` runs."""
    spec = importlib.util.find_spec(name)
    return f"{name}.__main__" if spec and spec.submodule_search_locations else name


if __name__ == "__main__":
    sys.exit(run())
