"""Variational autoencoders: what they have in common, and the one with one latent variable."""

from typing import Any, ClassVar

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models.base import Autoencoder, ElboTerms, draw, split_seed
from vae_cf_tf.models.decoders import Decoder
from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.encoders import Encoder
from vae_cf_tf.models.priors.base import PriorContext, PriorParts
from vae_cf_tf.models.priors.composite import CompositePrior
from vae_cf_tf.registries import PRIORS

tfd = tfp.distributions


class Variational(Autoencoder):
    """A model with a posterior: `encoder` for q of the (upper) latent variable, and `prior` of that variable."""

    prior_is_of: ClassVar[str] = "latent variable z"
    """Name of that variable, for people."""

    def _encoder(self) -> Encoder:
        s = self.settings
        return Encoder(self.num_items, layers=s.layers, skips=s.encoder_skips, **self.shape, name="encoder")

    def _prior(self) -> Any:
        parts = PriorParts(self.encoder, self.num_items, self.components, self.users, self.seed)
        return PRIORS[self.settings.prior].from_settings(self.settings, parts)

    def decode_from_prior(self, z: tf.Tensor) -> tf.Tensor:
        """f, float [n, num_outputs], at values of the variable that `prior` is of, float [n, latent_dim]."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("vae_cf_tf")
class VAE(Variational):
    """One latent variable: Mult-VAE with the standard normal prior (Liang et al. 2018), Vamp with the VampPrior
    (Kim & Suh 2019); with prior_own over the standard prior, RecVAE's composite (Shenbin et al. 2020).

    Differs from `DAE` in that the code is a Gaussian, whose KL divergence from the prior is a term of the loss.
    Arguments as `Autoencoder`.
    """

    @staticmethod
    def title(prior_title: str) -> str:
        """The model's name in the papers."""
        return prior_title or "Multi-VAE"

    def build_layers(self) -> None:
        self.encoder = self._encoder()
        self.prior = self._prior()
        self.decoder = Decoder(self.num_outputs, layers=self.decoder_layers, **self.shape, name="decoder")
        if self.settings.prior_own:
            self.prior = CompositePrior(
                self.prior,
                [self.encoder],
                lambda previous, context: previous[0](context.first_input()),  # type: ignore[misc] # there is a batch
                self.settings.prior_own,
                name="composite",
            )

    def refresh(self) -> None:
        self.prior.refresh()

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder.mean(self.first_input(histories)),)

    def decode_from_prior(self, z: tf.Tensor) -> tf.Tensor:
        return self.decode(z)

    def terms(
        self,
        histories: tf.RaggedTensor,
        seed: tf.Tensor | None = None,
        rate: float = 0.0,
        weights: tf.Tensor | None = None,
        density: bool = False,
    ) -> ElboTerms:
        x_seed, z_seed, prior_seed = split_seed(seed, 3)
        parameters = self.encoder(self.first_input(histories, rate, x_seed))
        posterior = diagonal_normal(*parameters)
        z = draw(posterior, z_seed)
        in_training = None if seed is None else parameters
        context = PriorContext(rate, prior_seed, in_training, lambda: self.first_input(histories))
        if density:
            context = PriorContext()
        prior = self.prior.distribution(context)
        if self.step_options.kl == "analytic":
            kl = tfd.kl_divergence(posterior, prior)
        else:
            kl = posterior.log_prob(z) - prior.log_prob(z)
        return ElboTerms(self.log_likelihood(histories, z, seed=None if density else seed, weights=weights), kl)
