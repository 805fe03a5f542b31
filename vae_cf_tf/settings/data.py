"""Settings of the data and of its split."""

import dataclasses
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
    item_titles: str = setting(
        "", "CSV or TSV of item ids and titles; empty: the data set's own, if it has any.", is_path=True
    )

    def check(self) -> None:
        contradiction("--data and --dataset both name the data; give one of them", bool(self.data and self.dataset))


@dataclasses.dataclass(frozen=True)
class SplitSettings(Section):
    """How the users are split (Liang et al. 2018, section 4.1).

    Examples:
      >>> SplitSettings(heldout_users=600).fold_in_share
      0.8
    """

    title: ClassVar[str] = "Split"

    threshold: float = setting(4.0, "A rating of at least this counts as an interaction.")
    min_items_per_user: int = setting(5, "Users with fewer interactions are left out.", low=0)
    min_users_per_item: int = setting(0, "Items with fewer interactions are left out.", low=0)
    heldout_users: int = setting(
        0, "Users held out for validation, and as many for test; 0: a tenth of the users, at most 10,000.", low=0
    )
    fold_in_share: float = setting(0.8, "Share of a held-out user's items that the model sees; the rest are targets.")
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

    def check(self) -> None:
        contradiction(
            "--user_draws=hashed holds out a share of the users, and --heldout_users asks for a number of them",
            self.user_draws == "hashed" and self.heldout_users > 0,
        )
        if not 0 < self.fold_in_share < 1:
            raise UserError(f"--fold_in_share must lie between 0 and 1. Received: {self.fold_in_share}.")
