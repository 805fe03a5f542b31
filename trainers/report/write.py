"""Writes the report: the sections that a run's model has, one page, and the plots beside it."""

import dataclasses
from pathlib import Path

from trainers.report import latent_sections, page, sections
from trainers.report.run import load, model_name
from vae_cf_tf.data.split import with_titles
from vae_cf_tf.data.titles import read_titles
from vae_cf_tf.files import written_aside
from vae_cf_tf.workdir import Workdir


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
    place = Workdir(workdir)
    place.config()  # a folder that is no run's is said to be so first
    split = place.split()
    if item_titles:
        split = with_titles(split, read_titles(Path(item_titles)))
    run = load(place, split)
    shown = [
        sections.training(run),
        sections.against_baselines(run, seed),
        sections.by_history(run, seed),
        sections.by_popularity(run, seed),
        sections.catalogue(run),
        latent_sections.latent_space(run, components, seed),
        sections.examples(run, example_users),
        (page.Section("Settings", [_settings(run.config)]), {}),
    ]
    found = [section for section in shown if section is not None]
    folder = Path(report_dir or place.path / "report")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {name: png for _, files in found for name, png in files.items()}.items():
        with written_aside(folder / name) as aside:
            aside.write_bytes(content)
    title = f"{model_name(run.config)}: report of a run"
    with written_aside(folder / "index.html") as aside:
        aside.write_text(page.page(title, sections.lead(run, seed), [section for section, _ in found]), "utf-8")
    return folder / "index.html"


def _settings(config: object) -> page.Html:
    rows = [(f"--{name}", str(value)) for name, value in dataclasses.asdict(config).items()]
    made = page.table("Every setting of the run", ["setting", "value"], rows, text=True)
    return page.element("details", page.element("summary", "Show all"), made)
