"""What the main job does before TensorFlow is needed: the settings and the data of a workdir, checked."""

from vae_cf_tf.data import source
from vae_cf_tf.data.interactions import Interactions
from vae_cf_tf.data.load import load_split, split_of
from vae_cf_tf.data.split import Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.evaluation import metrics
from vae_cf_tf.registries import LIKELIHOODS
from vae_cf_tf.runs.workdir import Workdir
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings
from vae_cf_tf.training import warm_start


def prepared_split(
    settings: Settings, workdir: Workdir, given: frozenset[str], say: Say, data: Interactions | Split | None = None
) -> Split:
    """The workdir's split; at the first start, that of the data, which is then kept there.

    Args:
      settings: of the run.
      workdir: locked by this process.
      given: the settings that the user named.
      say: receives the lines that a person reads.
      data: in place of what the settings name, data from memory.

    Raises:
      UserError: bad data, or a workdir of other settings.
    """
    workdir.check_settings(settings)
    split = None if data is None else split_of(data, settings, say, given)
    if split is None:
        workdir.check_data(settings)
    warm_start.check(settings, workdir)
    if workdir.has_split():
        stored = workdir.split()
        if split is not None and split.fingerprint() != stored.fingerprint():
            raise UserError(f"{workdir.path} was trained on other data. Give another workdir for the data of today.")
        split = stored
    else:
        described = source.describe(settings.data) if split is None else source.of_memory(split)
        split = split or load_split(settings, say, given)
        check_data(settings, split)
        workdir.claim(settings)  # first: a run that is killed here must not leave data that belongs to no settings
        workdir.claim_data(split, described)
    workdir.claim(settings)
    warm_start.claim(settings, workdir)
    say(
        f"{split.train.shape[0]:,} training users, {len(split.item_ids):,} items, {split.train.nnz:,} interactions; "
        f"{split.validation.fold_in.shape[0]:,} + {split.test.fold_in.shape[0]:,} users held out."
    )
    return split


def check_data(settings: Settings, split: Split) -> None:
    """Raises UserError for a catalogue, weights or shards that a run of these settings cannot take."""
    metrics.check_catalogue(len(split.item_ids))
    if split.has_weights and not LIKELIHOODS.has(settings.model.likelihood, "weights"):
        raise UserError(
            f"The data has weights, and --likelihood={settings.model.likelihood} knows none; give another one."
        )
    _check_in_memory(settings)


def _check_in_memory(settings: Settings) -> None:
    """Raises UserError for settings that need all training users in memory, where they stay on the disk."""
    if settings.data.train_from != "shards":
        return
    if settings.item_item.item_path != "none":
        raise UserError(
            f"--item_path={settings.item_item.item_path} needs all training users in memory, and --train_from=shards "
            "leaves them on the disk. Give --item_path=none."
        )
    if settings.training.initial_items == "factors":
        raise UserError(
            "--initial_items=factors needs all training users in memory. Give --train_from=memory, or leave it out."
        )
    if settings.training.warm_start:
        raise UserError("--warm_start needs all training users in memory. Give --train_from=memory, or leave it out.")


def prepared_time_split(settings: Settings, split: Split, given: frozenset[str], say: Say) -> Split | None:
    """The data of the run that --also_time_split makes, kept in its own workdir; None without that flag.

    Args:
      settings: of the run that it stands beside.
      split: the data of that run.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: as `prepared_split`; data that is split already.
    """
    if not settings.run.also_time_split:
        return None
    if split.about.get("by") == "given" or "prepared" in split.about:
        raise UserError("--also_time_split needs a log with times, and the data is split already; leave it out")
    say("Beside it, split by time:")
    inner = settings.of_time_split()
    workdir = Workdir(inner.run.workdir)
    with workdir.locked():
        return prepared_split(inner, workdir, given, say)
