"""Writes the report: the sections that a run's model has, one page, and the plots beside it."""

import datetime
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.report import latent_sections, page, sections
from trainers.report.finished import finished_run
from trainers.report.run import Run, load
from vae_cf_tf.data.split import with_titles
from vae_cf_tf.data.titles import read_titles
from vae_cf_tf.files import locked, written_aside
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.settings.flagfiles import as_flags


def write_report(
    workdir: str | Path,
    report_dir: str | Path = "",
    item_titles: str | Path = "",
    example_users: int = 6,
    components: int = 10,
    seed: int = 0,
) -> Path:
    """Writes index.html and its plots, and returns the page's path.

    Args:
      workdir: folder of a finished run.
      report_dir: folder to write to; "": WORKDIR/report.
      item_titles: file of item titles; "": those of the run.
      example_users: how many users' recommendations are shown.
      components: how many of the prior's components are described.
      seed: of the bootstrap and of the draws of z.

    Raises:
      UserError: the folder is no finished run's, or a file is missing or damaged.
    """
    options = dict(locals())
    files = Workdir(workdir)
    finished = finished_run(files)  # before the data, which takes longer to read
    split = files.split()
    if item_titles:
        split = with_titles(split, read_titles(Path(item_titles)))
    run = load(files, finished, split)
    candidates = [
        sections.data(run),
        sections.against_baselines(run, seed),
        sections.by_history(run, seed),
        sections.by_popularity(run, seed),
        sections.catalogue(run),
        sections.examples(run, example_users),
        sections.training(run),
        latent_sections.latent_space(run, components, seed),
        about(run, options),
    ]
    shown = [section for section in candidates if section is not None]
    images = page.draw(shown)
    html = page.render(f"Report of a run: {run.name}", sections.lead(run, seed), shown, images)
    folder = Path(report_dir or files.path / "report")
    write_files(folder, images | {"index.html": html.encode()})
    return folder / "index.html"


def write_files(folder: Path, contents: Mapping[str, bytes], waits: Sequence[float] = (0.1,) * 300) -> None:
    """Writes files by name. Of several reports that go to one folder at once, the last one's files stay, all of them.

    Args:
      folder: made where it is missing.
      contents: of each file.
      waits: seconds between tries while another process writes there.

    Raises:
      UserError: the other process takes longer.
    """
    busy = f"Another report is being written to {folder}. Wait for it, or give another --report_dir."
    with locked(folder, busy, waits):
        for name, content in contents.items():
            with written_aside(folder / name) as aside:
                aside.write_bytes(content)


def about(run: Run, options: Mapping[str, Any]) -> page.Section:
    """When and by what the run and this page were made, and every setting; `options` are those of `write_report`."""
    settings, versions = run.settings, run.metrics["versions"]
    of_run = {name: settings[name] for name in ("workdir", "export_dir") if settings[name]}
    facts = {
        "Model": f"latent structure {settings.model.latent}, prior {settings.model.prior}, {settings.model.block} "
        f"blocks, layers {settings.model.layers}, {settings.model.likelihood} likelihood",
        "Run finished": _date(datetime.datetime.fromisoformat(run.metrics["finished"])),
        "Run made with": f"vae_cf_tf {versions['vae_cf_tf']}, TensorFlow {versions['tensorflow']}",
        "Report written": _date(datetime.datetime.now()),
        "Data fingerprint": run.split.fingerprint(),
    }
    rows = [(f"--{name}", str(value)) for name, value in settings.flat().items()]
    return page.Section("About this run", [
        [page.Table("Run and report", [], list(facts.items()), words=True)],
        [page.Command("This command makes such a run:",
                   [*_command("trainers.main", of_run), *map(shlex.quote, as_flags(settings))])],
        [page.Command("This command made the page:", _command("trainers.report", options))],
        [page.Table("Every setting of the run", ["setting", "value"], rows, words=True, folded="Show every setting")],
    ])  # fmt: skip


def _command(module: str, values: Mapping[str, Any]) -> list[str]:
    flags = (f"--{name}={shlex.quote(str(value))}" for name, value in values.items() if value != "")
    return ["python", "-m", module, *flags]


def _date(moment: datetime.datetime) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M %Z}"
