"""Every setting of a run, in one frozen dataclass: the flags, metrics.json and the model card are made from it."""

import dataclasses
import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_cf_tf import flagfiles
from vae_cf_tf.errors import UserError, did_you_mean

WEIGHTS, RESULT, NOTHING = "weights", "result", "nothing"
"""What a setting changes: the trained weights, so that a workdir belongs to one value of it; only what is made of
finished weights, which is made again for another value; or none of the model's figures."""


def _setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    changes: str = WEIGHTS,
    path: bool = False,
    group: str = "",
) -> Any:
    """A field with its help text, the values it may take, and what it changes; `group` is its heading in --help."""
    metadata = {"help": help, "choices": choices, "low": low, "high": high, "changes": changes, "path": path}
    return dataclasses.field(default=default, metadata=metadata | {"group": group})


DATA, SPLIT, MODEL, TRAINING, EVALUATION, RUN = "Data", "Split", "Model", "Training", "Evaluation", "Run"
_data, _split, _model, _training, _evaluation, _run = (
    functools.partial(_setting, group=group) for group in (DATA, SPLIT, MODEL, TRAINING, EVALUATION, RUN)
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of a run. Each field is a flag of the same name; its help text is the documentation."""

    # Data
    data: str = _data("", "File or folder of interactions; empty: the embedded, generated data set.", path=True)
    dataset: str = _data(
        "", "Public data set to download into the cache.", ("", "ml-100k", "ml-1m", "ml-20m", "ml-25m", "ml-32m")
    )
    user_column: str = _data("", "Name of the user column; empty: the usual names are tried.")
    item_column: str = _data("", "Name of the item column; empty: the usual names are tried.")
    rating_column: str = _data("", "Name of the rating column; empty: the usual names are tried.")
    item_titles: str = _data(
        "", "CSV or TSV of item ids and titles; empty: the data set's own, if it has any.", path=True
    )

    # Split (Liang et al. 2018, section 4.1)
    threshold: float = _split(4.0, "A rating of at least this counts as an interaction.")
    min_items_per_user: int = _split(5, "Users with fewer interactions are left out.", low=0)
    min_users_per_item: int = _split(0, "Items with fewer interactions are left out.", low=0)
    heldout_users: int = _split(
        0, "Users held out for validation, and as many for test; 0: a tenth of the users, at most 10,000.", low=0
    )
    fold_in_share: float = _split(0.8, "Share of a held-out user's items that the model sees; the rest are targets.")
    split_seed: int = _split(98765, "Seed of the split; the papers' code has 98765.", low=0, high=4294967295)

    target_draws: str = _split(
        "reseeded",
        "Generator that draws the targets: started from --split_seed anew for each of the two parts, as the papers' "
        "code; or that of the users' permutation, which goes on.",
        ("reseeded", "continued"),
    )

    # Model
    latent: str = _model(
        "hierarchical", "Latent structure; none is the denoising autoencoder.", ("none", "flat", "hierarchical")
    )
    prior: str = _model(
        "user_vamp",
        "Prior of the (upper) latent variable: N(0, I); a mixture of posteriors at learned pseudo-inputs; the same at "
        "points learned behind the encoder's first block, whose cost does not depend on the catalogue; a mixture of "
        "the posteriors of training users, encoded anew every epoch; in training, of those of the batch's other users.",
        ("standard", "vamp", "hidden_vamp", "user_vamp", "batch_vamp"),
    )
    prior_own: float = _model(
        0.75,
        "Weight, in the prior of the lowest latent variable, of the user's own posterior as the encoder had it an "
        "epoch ago (RecVAE's composite prior: 0.75).",
        low=0,
        high=0.99,
    )
    block: str = _model("gated", "Hidden block: tanh(Wx+b), or the gated linear unit.", ("tanh", "gated"))
    layers: int = _model(3, "Hidden blocks of the encoder (L in the paper), and of the decoder.", low=1)
    encoder_skips: str = _model(
        "dense",
        "dense: each hidden block of the encoder also receives the sum of all earlier ones, and LayerNorm follows it "
        "(RecVAE).",
        ("none", "dense"),
    )
    lower_encoder: str = _model(
        "hidden",
        "What the lower posterior q(z1|x, z2) reads beside z2: the items, through weights of its own (Kim & Suh), or "
        "the last hidden block of q(z2|x), which halves the cost; then it is linear, and p(z1|z2) has one block.",
        ("items", "hidden"),
    )
    decoder_layers: int = _model(0, "Hidden blocks of the decoder; -1: as many as --layers; 0: it is linear.", low=-1)
    hidden_dim: int = _model(600, "Units of a hidden block.", low=1)
    latent_dim: int = _model(200, "Dimensions of each latent variable.", low=1)
    likelihood: str = _model("multinomial", "Likelihood of a user's items.", ("multinomial", "bernoulli", "gaussian"))
    confidence: float = _model(10.0, "Gaussian likelihood: weight of a consumed item's squared error (c1).", low=0)
    confidence_zero: float = _model(1.0, "Gaussian likelihood: weight of any other item's squared error (c0).", low=0)
    input_dropout: float = _model(
        0.5, "Share of a history that is dropped at the encoder's input in training.", low=0, high=0.99
    )
    initializer: str = _model(
        "glorot",
        "he: N(0, 2/fan_in), biases U(±1/sqrt(fan_in)), as Kim & Suh; glorot: Xavier uniform, as Liang et al.",
        ("he", "glorot"),
    )
    first_layer: str = _model(
        "auto",
        "Product of histories and the encoder's first kernel: over dense rows or over the history's items; "
        "auto chooses by catalogue and density.",
        ("auto", "dense", "sparse"),
    )
    softmax_samples: int = _model(
        0,
        "0: the multinomial likelihood normalises over all items in training; n: over the batch's items and n drawn at "
        "random, weighted, and a step updates the rows of those items alone. For catalogues of hundreds of thousands.",
        low=0,
    )
    pseudo_inputs: int = _model(1000, "Pseudo-inputs of the VampPrior (K).", low=1)
    pseudo_init: str = _model(
        "normal",
        "Pseudo-inputs start from N(.05, .01²), or from K training users plus N(0, .01²). The other "
        "forms of vamp always start from users.",
        ("normal", "users"),
    )
    item_path: str = _model(
        "linear",
        "linear: beside the trained decoder a linear path from items to items, EASE of normalised users and items in "
        "closed form; its weight is chosen on validation users.",
        ("none", "linear"),
        changes=RESULT,
    )
    item_path_discount: str = _model(
        "validation",
        "validation: popularity, which network and item path know each, is taken off their sum in a share that is "
        "chosen on validation users.",
        ("none", "validation"),
        changes=RESULT,
    )
    item_path_l2: float = _model(
        4.0, "λ of the item path, in units of a mean item's squared norm.", low=1e-6, changes=RESULT
    )
    item_path_mb: int = _model(
        128,
        "Megabytes that the item path may take; of a larger matrix the largest coefficients are kept.",
        low=1,
        changes=RESULT,
    )
    item_path_max_items: int = _model(
        25_000,
        "Items, those of most users, that the item path is made of: it takes a dense matrix of them.",
        low=1,
        changes=RESULT,
    )

    # Training
    dtype_policy: str = _training(
        "float32",
        "mixed_bfloat16 multiplies bfloat16 numbers in training's dense products; all else, evaluation and export stay "
        "float32. Pays where the processor has bfloat16 units.",
        ("float32", "mixed_bfloat16"),
    )
    optimizer: str = _training(
        "adam",
        "adam, or normalized_adam: each gradient tensor divided by its L2 norm first, as Kim & Suh.",
        ("adam", "normalized_adam"),
    )
    learning_rate: float = _training(1e-3, "Step size of the optimiser.", low=0)
    weight_decay: float = _training(0.0, "λ of λ·Σ‖W‖², added to the loss over all kernels (Multi-DAE).", low=0)
    batch_size: int = _training(250, "Users in a training step.", low=1)
    epochs: int = _training(
        40, "Epochs, at most; each is a pass over the training users, or --encoder_passes + 1.", low=1, changes=RESULT
    )
    patience: int = _training(5, "Stop after more than this many epochs without a better validation NDCG@100.", low=0)
    encoder_passes: int = _training(
        3,
        "0: all weights learn in every step; n: in turns, n passes over the users for encoder and prior, then one for "
        "the decoder, without dropout at the input, all in one epoch (RecVAE: 3).",
        low=0,
    )
    beta_cap: float = _training(0.005, "Largest weight of the KL term.", low=0)
    beta_warmup: float = _training(0.0, "Length of the linear warm-up of that weight; 0: none.", low=0)
    beta_scale: str = _training(
        "item",
        "What β multiplies: user: each user's KL term alike; item: once for each item of the history, as RecVAE.",
        ("user", "item"),
    )
    beta_unit: str = _training("epoch", "What beta_warmup counts.", ("epoch", "step"))
    kl: str = _training(
        "sample", "KL term: from the one sample of z, or in closed form (flat, standard prior).", ("sample", "analytic")
    )
    seed: int = _training(0, "Seed of every random draw but the split's.", low=0, high=2147483647)

    # Evaluation
    eval_batch_size: int = _evaluation(500, "Users in an evaluation step.", low=1, changes=NOTHING)
    ease_l2: str = _evaluation(
        "200,700,2000", "λ of the EASE baseline; of several, the best on validation is reported.", changes=NOTHING
    )
    ease_max_items: int = _evaluation(
        25_000, "Largest catalogue that EASE, a dense items × items matrix, is run on.", low=0, changes=NOTHING
    )

    # Run
    workdir: str = _run("runs/default", "Folder of everything the run writes.", changes=NOTHING, path=True)
    export_dir: str = _run("", "Folder of the exported SavedModel; empty: WORKDIR/export.", changes=NOTHING, path=True)
    checkpoint_seconds: float = _run(15.0, "Least time between two checkpoints.", low=0, changes=NOTHING)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check(field, getattr(self, field.name))
        contradictions = {
            "--data and --dataset both name the data; give one of them": self.data and self.dataset,
            f"--prior={self.prior} needs a latent variable, and --latent=none has none; use --prior=standard": (
                self.latent == "none" and self.prior != "standard"
            ),
            "--kl=analytic is known for --latent=flat with --prior=standard only; use --kl=sample": (
                self.kl == "analytic" and (self.latent != "flat" or self.prior != "standard")
            ),
            "--softmax_samples is for --likelihood=multinomial": (
                self.softmax_samples > 0 and self.likelihood != "multinomial"
            ),
            "--softmax_samples updates few rows in a step, and --weight_decay all of them": (
                self.softmax_samples > 0 and self.weight_decay > 0
            ),
            "--softmax_samples takes the items' sparse form; --first_layer=dense is for small catalogues": (
                self.softmax_samples > 0 and self.first_layer == "dense"
            ),
            "--prior_own in a flat model is RecVAE's composite of the standard prior; use --prior=standard": (
                self.latent == "flat" and self.prior != "standard" and self.prior_own > 0
            ),
            "--kl=analytic knows no --prior_own; use --kl=sample": self.kl == "analytic" and self.prior_own > 0,
            "--encoder_passes and --prior_own need a latent variable, and --latent=none has none": (
                self.latent == "none" and (self.encoder_passes > 0 or self.prior_own > 0)
            ),
            "--confidence must be above --confidence_zero, or every item counts as consumed": (
                self.likelihood == "gaussian" and self.confidence <= self.confidence_zero
            ),
        }
        for message, holds in contradictions.items():
            if holds:
                raise UserError(f"Contradictory flags: {message}.")
        if not self.workdir:
            raise UserError("--workdir is empty; give the folder that the run is to be written to.")
        if not 0 < self.fold_in_share < 1:
            raise UserError(f"--fold_in_share must lie between 0 and 1. Received: {self.fold_in_share}.")
        _ = self.ease_l2_values

    @staticmethod
    def _check(field: dataclasses.Field, value: Any) -> None:
        choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
        if choices and value not in choices:
            raise UserError(f"--{field.name} must be one of {', '.join(filter(None, choices))}. Received: {value!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{field.name} must be a finite number. Received: {value}.")
        if isinstance(value, int | float) and not low <= value <= high:
            bounds = f"at least {low}" + (f" and at most {high}" if high < math.inf else "")
            raise UserError(f"--{field.name} must be {bounds}. Received: {value}.")

    @property
    def ease_l2_values(self) -> tuple[float, ...]:
        try:
            values = tuple(float(text) for text in self.ease_l2.split(","))
        except ValueError:
            values = ()
        if not values or not all(0 < value < math.inf for value in values):
            raise UserError(f"--ease_l2 takes positive numbers separated by commas. Received: {self.ease_l2!r}.")
        return values

    @property
    def passes(self) -> int:
        """Passes over the training users in an epoch."""
        return self.encoder_passes + 1

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The configuration that `to_json` wrote; raises ValueError where the text is no such thing.

        A setting that an earlier version did not have yet takes its default, which is what that version did.
        """
        values = json.loads(text)
        known = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(values, Mapping) or not values or not set(values) <= known:
            raise ValueError("not a configuration of this version")
        for field in dataclasses.fields(cls):
            value = values.get(field.name, field.default)
            if type(value) is not type(field.default) and not (isinstance(field.default, float) and type(value) is int):
                raise ValueError(f"{field.name} is {value!r}")
        return cls(**values)

    def figures_depend_on(self) -> dict[str, Any]:
        """The settings that change the trained weights or what is made of them."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.metadata["changes"] != NOTHING
        }

    def differences(self, other: "Config") -> list[str]:
        """The settings, by name, that make `other` a different run."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.metadata["changes"] == WEIGHTS and getattr(self, field.name) != getattr(other, field.name)
        ]


def parsed(name: str, text: str) -> Any:
    """The value of the setting `name` that `text` writes.

    Raises:
      UserError: there is no such setting, or the text is no number where it takes one.
    """
    kinds: dict[str, type] = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    if name not in kinds:
        suggestion = did_you_mean(name, list(kinds))
        raise UserError(f"There is no setting {name!r}.{suggestion} (python -m trainers.main --help lists them.)")
    try:
        return kinds[name](text)
    except ValueError as error:
        number = "a whole number" if kinds[name] is int else "a number"
        raise UserError(f"--{name} takes {number}. Received: {text!r}.") from error


def flagfile_settings(path: Path) -> dict[str, Any]:
    """The settings of a flagfile and of those that it includes, by name."""
    pairs = (line.lstrip("-").partition("=") for line in flagfiles.flags_in(path))
    return {name: parsed(name, value) for name, _, value in pairs}


def written(value: Any) -> str:
    """A setting's value as a flag takes it: a number in as few digits as tell it from every other."""
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def nearest_flagfile(config: Config, *titles: str) -> tuple[Path, list[str]]:
    """The shipped flagfile that is nearest to the settings under these headings, and those that differ from it."""
    different: dict[Path, list[str]] = {}
    for path in flagfiles.shipped():
        theirs = Config(**flagfile_settings(path))
        different[path] = [n for n in fields_of(*titles) if getattr(config, n) != getattr(theirs, n)]
    nearest = min(different, key=lambda path: len(different[path]))
    return nearest, different[nearest]


def as_flags(config: Config) -> list[str]:
    """Flags that make these settings, but for the folders of the run; the shortest that a shipped flagfile allows."""
    path, names = nearest_flagfile(config, DATA, SPLIT, MODEL, TRAINING, EVALUATION)
    return [f"--flagfile={os.path.relpath(path)}", *(f"--{name}={written(getattr(config, name))}" for name in names)]


def fields_of(*titles: str) -> list[str]:
    """Names of the settings under these headings."""
    return [field.name for field in dataclasses.fields(Config) if field.metadata["group"] in titles]


def groups() -> dict[str, list[str]]:
    """Names of the settings by their heading in --help, those that most runs give first."""
    found: dict[str, list[str]] = {"Most used": ["data", "workdir", "epochs", "batch_size", "seed"]}
    for field in dataclasses.fields(Config):
        if field.name not in found["Most used"]:
            found.setdefault(field.metadata["group"], []).append(field.name)
    return found
