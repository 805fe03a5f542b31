"""Settings of the data and of its split."""

import dataclasses
import datetime
from typing import ClassVar

from vae_cf_tf.errors import UserError
from vae_cf_tf.settings.fields import Section, contradiction, setting


@dataclasses.dataclass(frozen=True)
class DataSettings(Section):
    """Where the interactions come from."""

    title: ClassVar[str] = "Data"

    data: str = setting("", "File or folder of interactions; empty: the embedded, generated data set.", is_path=True)
    dataset: str = setting(
        "", "Public data set to download into the cache.", "", "ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-32m"
    )
    user_column: str = setting("", "Name of the user column; empty: the usual names are tried.")
    item_column: str = setting("", "Name of the item column; empty: the usual names are tried.")
    rating_column: str = setting("", "Name of the rating column; empty: the usual names are tried.")
    timestamp_column: str = setting(
        "", "Name of the column of times (seconds, milliseconds or ISO 8601); empty: the usual names are tried."
    )
    weight_column: str = setting(
        "", "Name of a column of weights, such as play counts; empty: every event weighs 1. Of training items only."
    )
    train_from: str = setting(
        "memory",
        "shards: the training users of a data set of trainers.prepare stay on the disk, so that memory does not grow "
        "with their number; what needs all of them at once is left out.",
        "memory",
        "shards",
    )
    item_titles: str = setting(
        "", "CSV or TSV of item ids and titles; empty: the data set's own, if it has any.", is_path=True
    )

    def check(self) -> None:
        contradiction("--data and --dataset both name the data; give one of them", bool(self.data and self.dataset))


@dataclasses.dataclass(frozen=True)
class SplitSettings(Section):
    """How the users are split: Liang et al. 2018, section 4.1, or by time.

    Examples:
      >>> SplitSettings(heldout_users=600).fold_in_share
      0.8
    """

    title: ClassVar[str] = "Split"

    split: str = setting(
        "users",
        "users: the model never sees the held-out users in training, and a share of each one's items are targets. "
        "time: it trains on events before a cut and is judged on what users do after it.",
        "users",
        "time",
    )
    cut: str = setting(
        "0.9",
        "With --split=time: the date from which test targets come (ISO 8601, such as 2003-01-01), or the share of "
        "events before it. Validation targets come from the window before, which has as many events as lie after it.",
    )
    targets: str = setting(
        "random",
        "With --split=users: which of a held-out user's items are the targets, random ones or the latest ones.",
        "random",
        "latest",
    )
    threshold: float = setting(4.0, "A rating of at least this counts as an interaction.")
    min_items_per_user: int = setting(5, "Users with fewer interactions are left out.", low=0)
    min_users_per_item: int = setting(0, "Items with fewer interactions are left out.", low=0)
    heldout_users: int = setting(
        0, "Users held out for validation, and as many for test; 0: a tenth of the users, at most 10,000.", low=0
    )
    fold_in_share: float = setting(0.8, "Share of a held-out user's items that the model sees; the rest are targets.")
    repeats: str = setting(
        "once",
        "Weight of a training user's item with several events: the largest of these events, or their sum.",
        "once",
        "sum",
    )
    weight_scale: str = setting("none", "log: an item of weight x weighs log2(1 + x).", "none", "log")
    weight_cap: float = setting(0.0, "The most that an item weighs, after --weight_scale; 0: no limit.", low=0)
    half_life_days: float = setting(
        0.0,
        "The weight of a training event halves with every so many days before the last one; 0: age does not count.",
        low=0,
    )
    split_seed: int = setting(98765, "Seed of the split; the papers' code has 98765.", low=0, high=4294967295)
    target_draws: str = setting(
        "reseeded",
        "Generator that draws the targets: started from --split_seed anew for each of the two parts, as the papers' "
        "code; or that of the users' permutation, which goes on.",
        "reseeded",
        "continued",
    )

    user_draws: str = setting(
        "permuted",
        "Which users are held out: permuted: the last of a permutation, as the papers' code; hashed: a tenth for each "
        "part by a hash of the user's id, so that whoever is held out stays so as the log grows. Retrain with hashed: "
        "--warm_start and export.main --if_better then judge by users of whom no earlier model has learned.",
        "permuted",
        "hashed",
    )
    split_by: str = setting(
        "permutation",
        "permutation: users, targets and order as --user_draws and --target_draws say. hash: all of it by md5 of "
        "--split_seed and the ids, so that every engine of trainers.prepare makes the same of a log in any order.",
        "permutation",
        "hash",
    )
    heldout_share: float = setting(
        0.1, "With --split_by=hash: share of the users held out for validation, and as many for test."
    )

    training_users: int = setting(
        0,
        "Train on so many of the training users only, drawn by --split_seed: 1,000 of them are among the first 2,000. "
        "Held-out users, their items and the catalogue stay the same. 0: all.",
        low=0,
    )

    def check(self) -> None:
        contradiction(
            "--split_by=hash holds out --heldout_share of the users, and --heldout_users asks for a number of them",
            self.split_by == "hash" and self.heldout_users > 0,
        )
        for name in ("user_draws", "target_draws"):
            contradiction(
                f"--{name} is for --split_by=permutation",
                self.split_by == "hash" and getattr(self, name) != type(self).__dataclass_fields__[name].default,
            )
        contradiction(
            "--heldout_share is for --split_by=hash; --heldout_users gives a number of users",
            self.split_by != "hash" and self.heldout_share != SplitSettings.heldout_share,
        )
        if not 0 < self.heldout_share < 0.5:
            raise UserError(f"--heldout_share must lie between 0 and 0.5. Received: {self.heldout_share}.")
        contradiction(
            "--user_draws=hashed holds out a share of the users, and --heldout_users asks for a number of them",
            self.user_draws == "hashed" and self.heldout_users > 0,
        )
        if not 0 < self.fold_in_share < 1:
            raise UserError(f"--fold_in_share must lie between 0 and 1. Received: {self.fold_in_share}.")
        _ = self.cut_share, self.cut_time
        for name in OF_USERS:
            default = type(self).__dataclass_fields__[name].default
            contradiction(
                f"--{name} is for --split=users; with --split=time the cut decides (--cut)",
                self.split == "time" and getattr(self, name) != default,
            )

    @property
    def keeps_held_out(self) -> bool:
        """Whether the same users are held out as the log grows."""
        return self.user_draws == "hashed" or self.split_by == "hash"

    @property
    def needs_times(self) -> bool:
        """Whether the log must have timestamps."""
        return self.split == "time" or self.targets == "latest" or self.half_life_days > 0

    @property
    def cut_share(self) -> float | None:
        """The share of events before the cut; None where --cut is a date. Raises UserError as `cut_time`."""
        try:
            share = float(self.cut)
        except ValueError:
            return None
        if not 0.5 < share < 1:
            raise UserError(f"--cut as a share of the events must lie between 0.5 and 1. Received: {self.cut!r}.")
        return share

    @property
    def cut_time(self) -> float | None:
        """The cut in seconds since 1970; None where --cut is a share. A time without a zone is UTC.

        Raises:
          UserError: the setting is neither.
        """
        if self.cut_share is not None:
            return None
        try:
            moment = datetime.datetime.fromisoformat(self.cut)
        except ValueError as error:
            raise UserError(
                f"--cut takes a share such as 0.9 or a date such as 2003-01-01. Received: {self.cut!r}."
            ) from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


OF_USERS = ("targets", "heldout_users", "heldout_share", "fold_in_share", "target_draws")
"""Settings of --split=users: who is held out, and how their items are divided. With --split=time the cut decides."""
