"""Settings of the network, and of the item–item model beside it."""

import dataclasses
from typing import ClassVar

from vae_cf_tf.registries import ITEM_ITEM, LATENT, LIKELIHOODS, PRIORS
from vae_cf_tf.settings.fields import Changes, Section, contradiction, setting

WIDE = 30_000
"""Items from which --softmax_samples=-1 samples. On 2 cores, an epoch of the default on 42,181 users and 80,336 items
takes 211 s with all items."""
SAMPLES = 4_000


@dataclasses.dataclass(frozen=True)
class ModelSettings(Section):
    """The network: latent structure, prior, blocks, likelihood, sizes.

    Examples:
      >>> ModelSettings(latent="none", prior="standard", prior_own=0.0).has_latent_variable
      False
      >>> ModelSettings(block="relu")
      Traceback (most recent call last):
      vae_cf_tf.errors.UserError: --block must be one of tanh, gated. Received: 'relu'.
    """

    title: ClassVar[str] = "Model"

    latent: str = setting(
        LATENT.default, "Latent structure; none is the denoising autoencoder, without a latent variable.", family=LATENT
    )
    prior: str = setting(
        PRIORS.default,
        "Prior of the (upper) latent variable: N(0, I); a mixture of posteriors at learned pseudo-inputs; the same at "
        "points learned behind the encoder's first block, whose cost does not depend on the catalogue; a mixture of "
        "the posteriors of training users, encoded anew every epoch; in training, of those of the batch's other users.",
        family=PRIORS,
    )
    prior_own: float = setting(
        0.75,
        "Weight, in the prior of the lowest latent variable, of the user's own posterior as the encoder had it an "
        "epoch ago (RecVAE's composite prior: 0.75).",
        low=0,
        high=0.99,
    )
    block: str = setting("gated", "Hidden block: tanh(Wx+b), or the gated linear unit.", "tanh", "gated")
    layers: int = setting(3, "Hidden blocks of the encoder (L in the paper), and of the decoder.", low=1)
    encoder_skips: str = setting(
        "dense",
        "dense: each hidden block of the encoder also receives the sum of all earlier ones, and LayerNorm follows it "
        "(RecVAE).",
        "none",
        "dense",
    )
    lower_encoder: str = setting(
        "hidden",
        "What the lower posterior q(z1|x, z2) reads beside z2: the items, through weights of its own (Kim & Suh), or "
        "the last hidden block of q(z2|x), which halves the cost; then it is linear, and p(z1|z2) has one block.",
        "items",
        "hidden",
    )
    decoder_layers: int = setting(
        0, "Hidden blocks of the decoder; -1: as many as --layers; 0: the decoder is linear.", low=-1
    )
    hidden_dim: int = setting(600, "Units of a hidden block.", low=1)
    latent_dim: int = setting(200, "Dimensions of each latent variable.", low=1)
    likelihood: str = setting(LIKELIHOODS.default, "Likelihood of a user's items.", family=LIKELIHOODS)
    confidence: float = setting(10.0, "Gaussian likelihood: weight of a consumed item's squared error (c1).", low=0)
    confidence_zero: float = setting(1.0, "Gaussian likelihood: weight of any other item's squared error (c0).", low=0)
    initializer: str = setting(
        "glorot",
        "he: N(0, 2/fan_in), biases U(±1/sqrt(fan_in)), as Kim & Suh; glorot: Xavier uniform, as Liang et al.",
        "he",
        "glorot",
    )
    first_layer: str = setting(
        "auto",
        "Product of histories and the encoder's first kernel: over dense rows or over the history's items; "
        "auto chooses by catalogue and density.",
        "auto",
        "dense",
        "sparse",
    )
    softmax_samples: int = setting(
        -1,
        "0: the multinomial likelihood normalises over all items in training; n: over the batch's items and n drawn at "
        f"random, weighted, and a step updates the rows of those items only; -1: {SAMPLES:,} from {WIDE:,} items on, "
        "else 0.",
        low=-1,
    )
    pseudo_inputs: int = setting(1000, "Pseudo-inputs of the VampPrior (K).", low=1)
    pseudo_init: str = setting(
        "normal",
        "Pseudo-inputs start from N(.05, .01²), or from K training users plus N(0, .01²), or from K training users "
        "as the encoder reads them, of length 1. The other forms of vamp always start from users.",
        "normal",
        "users",
        "unit_users",
    )

    def for_catalogue(self, num_items: int) -> "ModelSettings":
        """The settings with the number that --softmax_samples=-1 stands for."""
        if self.softmax_samples >= 0:
            return self
        sampled = num_items >= WIDE and LIKELIHOODS.has(self.likelihood, "sampled") and self.first_layer != "dense"
        return dataclasses.replace(self, softmax_samples=SAMPLES if sampled else 0)

    @property
    def has_latent_variable(self) -> bool:
        return LATENT.has(self.latent, "latent variable")

    def check(self) -> None:
        contradiction(
            f"--prior={self.prior} needs a latent variable, and --latent={self.latent} has none; use "
            f"--prior={PRIORS.plainest}",
            not self.has_latent_variable and self.prior != PRIORS.plainest,
        )
        contradiction(
            f"--prior_own needs a latent variable, and --latent={self.latent} has none",
            not self.has_latent_variable and self.prior_own > 0,
        )
        contradiction(
            f"--softmax_samples is not known for --likelihood={self.likelihood}",
            self.softmax_samples > 0 and not LIKELIHOODS.has(self.likelihood, "sampled"),
        )
        contradiction(
            "--softmax_samples takes the items' sparse form; --first_layer=dense is for small catalogues",
            self.softmax_samples > 0 and self.first_layer == "dense",
        )
        contradiction(
            "--confidence must be above --confidence_zero, or every item counts as consumed",
            self.confidence <= self.confidence_zero,
        )


@dataclasses.dataclass(frozen=True)
class ItemItemSettings(Section):
    """The item–item model beside the network. It is fitted after training, so these settings may change afterwards."""

    title: ClassVar[str] = "Item–item model"

    @property
    def candidates(self) -> tuple[str, ...]:
        """Names of the item–item models of which the best on validation users stands beside the network."""
        if self.item_path == "validation":
            return ITEM_ITEM.names()
        return () if self.item_path == "none" else (self.item_path,)

    item_path: str = setting(
        "validation",
        "Item–item model beside the trained decoder, whose weight is chosen on validation users. linear: EASE of "
        "normalised users and items, in closed form; knn: item k-nearest neighbours; validation: the better of these.",
        "none",
        "validation",
        family=ITEM_ITEM,
        changes=Changes.RESULT,
    )
    item_path_discount: str = setting(
        "validation",
        "validation: network and item–item model both encode popularity, so a share of it is subtracted from their "
        "sum; the share is chosen on validation users.",
        "none",
        "validation",
        changes=Changes.RESULT,
    )
    item_path_l2: float = setting(
        4.0, "λ of the item–item model, in units of a mean item's squared norm.", low=1e-6, changes=Changes.RESULT
    )
    item_path_mb: int = setting(
        256,
        "Megabytes for the item–item model. Of a larger matrix the largest coefficients are kept in one half; "
        "the other half holds a low-rank model of the same log, whose share is chosen on validation users.",
        low=1,
        changes=Changes.RESULT,
    )
    item_path_max_items: int = setting(
        25_000,
        "Items that the item–item model covers, those of most users: it takes a dense matrix of them.",
        low=1,
        changes=Changes.RESULT,
    )
