"""The class `Recommender`: the package from Python."""

import contextlib
import dataclasses
import logging
import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from export import card, versions
from trainers import claim, memory_check, summary
from vae_cf_tf.cli.lazy import LazyModule
from vae_cf_tf.data import formats, frames, titles
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.load import read_log, reader_options, split_of
from vae_cf_tf.data.split import PARTS, Split
from vae_cf_tf.errors import UserError, did_you_mean
from vae_cf_tf.evaluation.metrics import METRICS
from vae_cf_tf.files import home_expanded, move
from vae_cf_tf.recommender import requests
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say, print_line, silent
from vae_cf_tf.settings import Settings, flagfiles
from vae_cf_tf.settings.settings import names, typed

if TYPE_CHECKING:
    from export import savedmodel
    from trainers import job
    from vae_cf_tf.recommender import served
    from vae_cf_tf.runs import checkpoints
else:
    job, savedmodel = LazyModule("trainers.job"), LazyModule("export.savedmodel")
    served, checkpoints = LazyModule("vae_cf_tf.recommender.served"), LazyModule("vae_cf_tf.runs.checkpoints")


class Recommender:
    """Trains, evaluates, queries and exports a recommender model.

    It does what `trainers.main` and `export.main` do. Its answers come from the signatures of the exported SavedModel.

    Args:
      preset: name of a shipped flagfile ("vamp", "evcf", …) or path of one; None: the defaults of the settings.
      workdir: folder for all files of the run. The same call resumes there, as on the command line. None: a temporary
        folder, which is deleted with this object.
      settings: settings under their flags' names. `data` and `item_titles` may also be data frames, and `item_titles` a
        dict.

    Raises:
      UserError: an unknown preset or setting, or an invalid value.

    Attributes (after `fit` or `load`):
      metrics: the content of metrics.json; for an exported version, its test and validation metrics and settings.
      history: a row for each epoch, as in history.csv.
      item_ids: raw id of each item of the catalogue.

    Example:
      recommender = Recommender(preset="vamp", epochs=20).fit(interactions)
      recommender.recommend([["1193", "3408"], ["2355"]], k=10, exclude=["260"])

      >>> Recommender(preset="vamp", epochs=20)
      Recommender('vamp', epochs=20)
    """

    def __init__(
        self, preset: str | os.PathLike[str] | None = None, *, workdir: str | os.PathLike[str] | None = None, **settings
    ):
        self._preset = None if preset is None else os.fspath(preset)
        of_preset = {} if self._preset is None else _preset(self._preset)
        self._of_preset = Settings.of(**of_preset)
        # Tables take the place of paths.
        tables = {name: settings.pop(name) for name in ("data", "item_titles") if not _is_path(settings.get(name, ""))}
        self._data, self._titles = tables.get("data"), tables.get("item_titles")
        settings |= {} if workdir is None else {"workdir": workdir}
        given = {name: typed(name, value) for name, value in settings.items()}
        self.settings = self._of_preset.replaced(**given)
        self._given = frozenset({*of_preset, *given})
        self._workdir = Workdir(self.settings.run.workdir) if workdir is not None else None
        self._is_temporary = workdir is None
        self._remove_temporary: Callable[[], Any] = lambda: None
        self._version: Path | None = None
        self._served: served.Served | None = None

    def __repr__(self) -> str:
        """The preset, and the settings that differ from it."""
        hidden = {"workdir"} if self._is_temporary else set()
        parts = [repr(self._preset)] if self._preset else []
        for name in names():
            if self.settings[name] != self._of_preset[name] and name not in hidden:
                parts.append(f"{name}={self.settings[name]!r}")
        return f"Recommender({', '.join(parts)})"

    def fit(self, data: Any = None, verbose: int = 1) -> "Recommender":
        """Trains on `data`, evaluates the model on held-out users, and returns this object.

        A second call with the same data resumes from the last checkpoint.

        Args:
          data: a pandas, Polars or PyArrow frame with a user and an item column, and optionally a rating column; a
            path, as for `--data`; a `Split`; `Interactions`; None: the setting `data`, or the embedded data set.
          verbose: 0 prints nothing; 1 shows a bar where the output can redraw it, otherwise a line an epoch; 2 prints a
            line an epoch.

        Raises:
          UserError: invalid data, a workdir of a run with other settings or data, or a training that diverged.
          KeyboardInterrupt: Ctrl-C; its text says where the next `fit` resumes.
        """
        if self.settings.run.also_time_split or self.settings.run.distribute == "multi_worker":
            raise UserError("also_time_split and distribute='multi_worker' are for trainers.main. Leave them out here.")
        say = silent if verbose == 0 else print_line
        self._version = self._served = None
        settings, memory = self._source(self._data if data is None else data, say)
        given = self._given
        if self._is_temporary:
            memory = split_of(read_log(settings, say) if memory is None else memory, settings, say, given)
            given = frozenset()  # split_of has already checked them
            settings = settings.replaced(workdir=str(self._temporary_for(memory).path))
        workdir = self._workdir = Workdir(settings.run.workdir)
        with _resumable(workdir), _without_retracing_warnings(), workdir.locked():
            say(summary.settings_line(settings))
            split = claim.prepared_split(settings, workdir, given, say, memory)
            if self._titles is not None:
                matched = titles.matching(frames.titles(self._titles), split.item_ids)
                split = dataclasses.replace(split, titles=matched)
                split.save(workdir.path)
            memory_check.check(settings, split, say)
            evaluation = job.trained(settings, workdir, split, say, verbose)
        say(summary.table(evaluation.values))
        return self

    def recommend(
        self,
        histories: Any,
        k: int = 10,
        exclude: Any = None,
        candidates: Any = None,
        include_history: bool = False,
    ) -> pd.DataFrame:
        """The best items for each history, best first. Items of the history are left out unless `include_history`.

        Args:
          histories: a list of item ids, which is one history; a list of lists; a dict of lists by user; or a frame with
            a user and an item column. Ids may be integers. Unknown ids are ignored.
          k: number of items for each history; fewer are returned if fewer may be recommended.
          exclude: ids that are never recommended: a list for all histories, or one for each.
          candidates: the only ids that may be recommended, in the same forms; None: the whole catalogue.
          include_history: whether items of the history may be recommended.

        Returns:
          A row for each recommended item: `row` (number of the history, or its user), `rank` (from 1), `item_id`,
          `title` (missing if the item has none) and `score`, a log-probability.

        Raises:
          UserError: ids in another form, or a `k` or a rule that an exported version does not support.
        """
        labels, lists = requests.histories(histories)
        model = self._model(k)
        _warn_of_unknown(lists, model)
        if exclude is None and candidates is None and not include_history:
            return _ranked(labels, model.ask("recommend", history=lists), model, k)
        answer = model.ask(
            "recommend_filtered",
            history=lists,
            candidates=_rules(candidates, len(lists), "candidates", of_none=["\n"]),
            exclude=_rules(exclude, len(lists), "exclude"),
            include_history=[bool(include_history)] * len(lists),
        )
        return _ranked(labels, answer, model, k)

    def similar_items(self, items: Any, k: int = 10) -> pd.DataFrame:
        """The items that are most similar to each given item: a frame as from `recommend`; `row` is the given item.

        Args:
          items: an id, or several. An unknown id has no rows in the answer.
          k: number of similar items for each.
        """
        ids, model = requests.items(items), self._model(k)
        return _ranked(ids, model.ask("similar_items", item=ids), model, k)

    def explain(self, history: Any, item: Any) -> pd.DataFrame:
        """How much each item of a history contributes to the score of a recommended item.

        A contribution is by how much the log-probability of `item` falls if the history lacks that item.

        Args:
          history: one history or several, as in `recommend`.
          item: the id of the recommended item: one for all histories, or one for each.

        Returns:
          A row for each item of the history, largest contribution first: `row`, `rank`, `item_id`, `title`,
          `contribution`. Unknown ids are left out, and a repeated id has one row.
        """
        labels, lists = requests.histories(history)
        targets, model = requests.items(item), self._model()
        if len(targets) not in (1, len(lists)):
            raise UserError(
                f"item takes one id, or one for each of the {len(lists)} histories. Received: {len(targets)}."
            )
        _warn_of_unknown(lists, model)
        known = set(model.item_ids)
        target_of_row = targets if len(targets) == len(lists) else targets * len(lists)
        answers = []
        contributions = model.ask("explain", history=lists, item=target_of_row)["contributions"]
        for ids, values in zip(lists, contributions, strict=True):
            first = {item: index for index, item in reversed(list(enumerate(ids))) if item in known}
            answers.append(sorted(((item, values[index]) for item, index in first.items()), key=lambda pair: -pair[1]))
        return _table(labels, answers, model, "contribution")

    def embed(self, histories: Any) -> pd.DataFrame:
        """The posterior mean of each history: a row for each history, a column for each latent dimension.

        Histories have the forms of `recommend`, and rows are named as its `row`.
        """
        labels, lists = requests.histories(histories)
        values = self._model().ask("embed", history=lists)["embedding"]
        return pd.DataFrame(values, index=pd.Index(labels, name="row"))

    def evaluate(self) -> pd.DataFrame:
        """Metrics of the model and of the baselines, on the same held-out users.

        Returns:
          A row for each `model`, `part` (test or validation) and `metric`, with `mean` and `stderr` over the users.
          Judge by test: epochs and settings were chosen on validation users. An exported version has no baselines.
        """
        values = self.metrics
        models = {"this model": values} | {baseline["label"]: baseline for baseline in values.get("baselines", [])}
        rows = [
            (model, part, metric, figures[part][metric]["mean"], figures[part][metric]["stderr"])
            for part in PARTS
            for model, figures in models.items()
            for metric in METRICS
        ]
        return pd.DataFrame(rows, columns=["model", "part", "metric", "mean", "stderr"])

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json; for an exported version, the metrics and settings in its model card."""
        if self._version is None:
            return self._run().read_metrics()
        about = card.read(self._version)
        if not about["metrics"]:
            raise UserError(f"The run of {self._version} was not judged before it was exported.")
        return about["metrics"] | {"config": about["config"], "best_epoch": about["best_epoch"]}

    @property
    def history(self) -> pd.DataFrame:
        """A row for each epoch, as in history.csv. Raises UserError for an exported version."""
        return pd.DataFrame(self._run().read_history())

    @property
    def item_ids(self) -> list[str]:
        """The raw id of each item of the catalogue."""
        return self._model().item_ids if self._version or self._served else self._run().split().item_ids

    def export(self, export_dir: str | os.PathLike[str], top_k: int = 100, weights: str = "float32") -> Path:
        """Writes the SavedModel as a new numbered version in `export_dir`, as `export.main` does; returns its path."""
        return savedmodel.export_run(self._run(), home_expanded(export_dir), top_k, weights)

    def save(self, workdir: str | os.PathLike[str]) -> Path:
        """Copies all files of the run to a new folder, which `load` can read; returns its path."""
        run, target = self._run(), Path(home_expanded(workdir))
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target} exists and is not empty. Give another folder.")
        run.read_metrics()
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            shutil.copytree(run.path, aside, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "export"))
            Workdir(aside).claim(run.settings().replaced(workdir=str(target)))
            aside.chmod(0o755)
            move(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recommender":
        """The recommender of a finished run's workdir, or of an exported version.

        Args:
          path: a workdir, a version's folder, or the folder of versions, of which the newest is taken.

        Raises:
          UserError: it is neither, or files are missing.
        """
        folder = Path(home_expanded(path))
        workdir = Workdir(folder)
        if workdir.settings_file.exists():
            stored = workdir.settings()
            workdir.read_metrics()
            return cls(**(_different(stored) | {"workdir": folder}))
        try:
            version = versions.newest_in(folder)
        except UserError as error:
            raise UserError(
                f"{folder} is neither the workdir of a run nor an exported model. Give one of the two."
            ) from error
        config = card.read(version)["config"]
        recommender = cls(**_different(Settings.of(**{name: config[name] for name in names() if name in config})))
        recommender._version = version
        return recommender

    def _source(self, data: Any, say: Say) -> tuple[Settings, Interactions | Split | None]:
        """The settings, and the data if it is in memory. Data that is a path is put into the settings instead."""
        if data is None or isinstance(data, str | os.PathLike):
            return (self.settings if data is None else self.settings.replaced(data=os.fspath(data))), None
        if isinstance(data, Split | Interactions):
            return self.settings, data
        if not frames.is_frame(data):
            raise UserError(
                "The data is a DataFrame (pandas, Polars, PyArrow) with a row an event, a path, a Split or nothing. "
                f"Received: {type(data).__name__}."
            )
        return self.settings, formats.read(data, reader_options(self.settings), say)

    def _temporary_for(self, split: Split) -> Workdir:
        """The temporary workdir for this data: the present one if its run is on the same data, otherwise a new one."""
        workdir = self._workdir
        if workdir and workdir.has_split() and workdir.split().fingerprint() == split.fingerprint():
            return workdir
        self._remove_temporary()
        folder = tempfile.mkdtemp(prefix="vae_cf_tf-")
        self._remove_temporary = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Workdir(folder)

    def _run(self) -> Workdir:
        """The workdir of the run, finished or not. Raises UserError if there is none."""
        if self._version is not None:
            raise UserError(f"{self._version} is an exported version; only a run has this. Load its workdir instead.")
        if self._workdir is None or not self._workdir.settings_file.exists():
            raise UserError("This Recommender is not trained yet. Call fit first.")
        return self._workdir

    def _model(self, k: int = 1) -> "served.Served":
        """The served model, whose answers have at least k items (or the whole catalogue)."""
        if k < 1:
            raise UserError(f"k must be at least 1. Received: {k}.")
        if self._version is not None and self._served is None:
            self._served = served.Served(self._version)
        if self._served is None or (self._version is None and k > self._served.top_k < len(self._served.item_ids)):
            self._served = served.Served.of_run(self._run(), max(k, savedmodel.TOP_K))
        if k > self._served.top_k < len(self._served.item_ids):
            raise UserError(
                f"{self._version} recommends at most {self._served.top_k} items. Received: k={k}. Export it with a "
                "larger top_k."
            )
        return self._served


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _warn_of_unknown(lists: list[list[str]], model: "served.Served") -> None:
    """Warns if the catalogue has none of the ids: they are probably from another id space."""
    asked = {item for ids in lists for item in ids} - {""}
    if asked and asked.isdisjoint(model.item_ids):
        warnings.warn(
            f"None of the ids is in the catalogue. They are such as {min(asked)!r}, items such as "
            f"{model.item_ids[0]!r}.",
            stacklevel=3,
        )


def _rules(given: Any, rows: int, name: str, of_none: Sequence[str] = ()) -> list[list[str]]:
    """A list of ids for each row. An empty list that the caller gave is replaced by `of_none`, ids of no item."""
    if given is None:
        return [[]] * rows
    return [ids or list(of_none) for ids in requests.item_lists(given, rows, name)]


def _ranked(labels: list[Any], answer: Mapping[str, Any], model: "served.Served", k: int) -> pd.DataFrame:
    """A frame of the first k items of each row. "" fills the places for which no item was left; it is dropped."""
    pairs = zip(answer["item_ids"][:, :k], answer["scores"][:, :k], strict=True)
    answers = [[(item, score) for item, score in zip(*row, strict=True) if item] for row in pairs]
    return _table(labels, answers, model, "score")


def _table(labels: list[Any], answers: list[list[tuple[str, Any]]], model: "served.Served", of: str) -> pd.DataFrame:
    """A frame with a row for each (item, number) of `answers`. `of` is the name of the number's column."""
    rows = [
        (label, rank + 1, item, model.titles.get(item), float(number))
        for label, answer in zip(labels, answers, strict=True)
        for rank, (item, number) in enumerate(answer)
    ]
    table = pd.DataFrame(rows, columns=["row", "rank", "item_id", "title", of])
    return table.astype({"rank": int, of: float})  # a frame without rows needs the types, too


@contextlib.contextmanager
def _resumable(workdir: Workdir) -> Iterator[None]:
    """Within this context, the message of Ctrl-C says where `fit` resumes."""
    try:
        yield
    except KeyboardInterrupt:
        where = "starts from the first epoch: no checkpoint was written yet"
        if workdir.checkpoint.exists():
            where = f"goes on {checkpoints.place(checkpoints.read_meta(workdir.checkpoint))}"
        raise KeyboardInterrupt(f"fit on the same data {where}.") from None


@contextlib.contextmanager
def _without_retracing_warnings() -> Iterator[None]:
    """Within this context, TensorFlow does not warn about retracing: each fit traces the functions of a new model."""
    logger = logging.getLogger("tensorflow")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _preset(name: str) -> dict[str, Any]:
    """The settings of a flagfile: a shipped one by its name, another by its path."""
    shipped = {path.stem: path for path in flagfiles.shipped()}
    if name in shipped:
        return flagfiles.settings_in(shipped[name])
    if Path(home_expanded(name)).is_file() or name.endswith(".flags"):
        return flagfiles.settings_in(Path(home_expanded(name)))
    raise UserError(
        f"There is no preset {name!r}.{did_you_mean(name, list(shipped))} (Presets: {', '.join(shipped)}; or give the "
        "path of a flagfile.)"
    )


def _different(settings: Settings) -> dict[str, Any]:
    """The settings that differ from the defaults, without `workdir`."""
    default = Settings()
    return {name: settings[name] for name in names() if settings[name] != default[name] and name != "workdir"}
