"""Settings of the training."""

import dataclasses
from typing import ClassVar

from vae_cf_tf.settings.fields import Changes, Section, setting


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Section):
    """Optimiser, schedule, weights of the loss, and the seed.

    Examples:
      >>> TrainingSettings(encoder_passes=3).passes
      4
    """

    title: ClassVar[str] = "Training"

    dtype_policy: str = setting(
        "float32",
        "mixed_bfloat16 multiplies bfloat16 numbers in training's dense products; all else, evaluation and export stay "
        "float32. Pays where the processor has bfloat16 units.",
        "float32",
        "mixed_bfloat16",
    )
    optimizer: str = setting(
        "adam",
        "adam, or normalized_adam: each gradient tensor divided by its L2 norm first, as Kim & Suh.",
        "adam",
        "normalized_adam",
    )
    learning_rate: float = setting(3e-3, "Step size of the optimiser.", low=0)
    weight_decay: float = setting(0.0, "λ of λ·Σ‖W‖², added to the loss over all kernels (Multi-DAE).", low=0)
    input_dropout: float = setting(
        0.5, "Share of a history that is dropped at the encoder's input in training.", low=0, high=0.99
    )
    batch_size: int = setting(250, "Users in a training step.", low=1)
    epochs: int = setting(
        100,
        "Epochs, at most; each is a pass over the training users, or --encoder_passes + 1.",
        low=1,
        changes=Changes.RESULT,
    )
    patience: int = setting(
        5, "Stop after more than this many epochs without a better validation figure (--best_by).", low=0
    )
    best_by: str = setting(
        "ndcg@100",
        "Figure of the validation users that decides which epoch is best and when training stops: ndcg@100 for "
        "ranking, elbo (at β = 1) for the model as a density of histories.",
        "ndcg@100",
        "elbo",
    )
    encoder_passes: int = setting(
        3,
        "0: all weights learn in every step; n: alternating training: in each epoch n passes over the users update "
        "encoder and prior, then one pass updates the decoder without input dropout (RecVAE: 3).",
        low=0,
    )
    turns: str = setting(
        "step",
        "How --encoder_passes=n alternates. epoch: n passes for encoder and prior, then one for the decoder. step: n "
        "steps, then one; both parts get the same number of steps as with epoch, and follow each other more closely.",
        "epoch",
        "step",
    )
    average_weights: float = setting(
        0.998,
        "Decay a step of the average of the weights over the steps so far. The average is what is validated, kept and "
        "exported; training goes on from the weights themselves. 0: no average.",
        low=0,
        high=0.99999,
    )
    beta_cap: float = setting(0.005, "Largest weight of the KL term.", low=0)
    beta_warmup: float = setting(0.0, "Length of the linear warm-up of that weight; 0: none.", low=0)
    beta_scale: str = setting(
        "item",
        "What β multiplies: user: each user's KL term alike; item: once for each item of the history, as RecVAE.",
        "user",
        "item",
    )
    beta_unit: str = setting("epoch", "What beta_warmup counts.", "epoch", "step")
    kl: str = setting(
        "sample", "KL term: from the one sample of z, or in closed form (flat, standard prior).", "sample", "analytic"
    )
    seed: int = setting(0, "Seed of every random draw but the split's.", low=0, high=2147483647)

    initial_items: str = setting(
        "auto",
        "What the item vectors of encoder and decoder start from: random draws, or factors of the log (implicit ALS), "
        "with which a sparse log needs a few epochs only; auto: factors where a mean item has fewer than 40 users.",
        "auto",
        "random",
        "factors",
    )
    warm_start: str = setting(
        "",
        "Folder of an earlier run of the same architecture, from whose best weights this one starts, matched by item "
        "id. Empty: weights drawn from --seed.",
        is_path=True,
    )

    @property
    def passes(self) -> int:
        """Passes over the training users in an epoch."""
        return self.encoder_passes + 1
