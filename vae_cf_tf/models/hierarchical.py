"""The hierarchy of two latent variables."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from vae_cf_tf.models.base import ElboTerms, draw, split_seed
from vae_cf_tf.models.decoders import JointDecoder
from vae_cf_tf.models.distributions import diagonal_normal
from vae_cf_tf.models.encoders import ConditionalEncoder
from vae_cf_tf.models.flat import Variational
from vae_cf_tf.models.priors.base import Gaussian, PriorContext
from vae_cf_tf.models.priors.composite import CompositePrior
from vae_cf_tf.models.priors.conditional import ConditionalPrior


@keras.saving.register_keras_serializable("vae_cf_tf")
class HierarchicalVAE(Variational):
    """Two latent variables, q(z2|x) q(z1|x, z2) and p(z2) p(z1|z2) p(x|z1, z2): H+Vamp with the VampPrior
    (Kim & Suh 2019).

    Differs from `VAE` in the second, lower latent variable z1, whose prior is a Gaussian given z2. The prior of the
    settings is that of z2. With prior_own, the prior of z1 is RecVAE's composite, with that Gaussian as its base in
    place of N(0, I). Arguments as `Autoencoder`.
    """

    prior_is_of = "upper latent variable z2"

    @staticmethod
    def title(prior_title: str) -> str:
        """The model's name in the papers."""
        return f"H+{prior_title}" if prior_title else "Hierarchical VAE"

    def build_layers(self) -> None:
        s = self.settings
        self.reads_items = s.lower_encoder == "items"
        self.encoder = self._encoder()
        if self.reads_items:
            lower = {"input_dim": self.num_items, "items": self.num_items, "layers": s.layers}
        else:
            lower = {"input_dim": s.hidden_dim, "layers": 0}
        self.lower_encoder = ConditionalEncoder(**lower, skips=s.encoder_skips, **self.shape, name="lower_encoder")
        self.prior = self._prior()
        shape = {name: value for name, value in self.shape.items() if name != "by_rows"}
        self.lower_prior = self.lower_base = ConditionalPrior(
            layers=s.layers if self.reads_items else 1, **shape, name="lower_prior"
        )
        self.decoder = JointDecoder(self.num_outputs, layers=self.decoder_layers, **self.shape, name="decoder")
        if s.prior_own:
            networks = [self.lower_encoder] if self.reads_items else [self.lower_encoder, self.encoder.hidden]
            self.lower_prior = CompositePrior(
                self.lower_base, networks, self._previous_posterior, s.prior_own, name="composite"
            )

    @staticmethod
    def _previous_posterior(previous: Sequence[keras.layers.Layer], context: PriorContext) -> Gaussian:
        """q(z1|x, z2) at the last `refresh`: from copies of the lower encoder and, if it reads them, hidden blocks."""
        lower_encoder, *hidden = previous
        x = context.first_input()  # type: ignore[misc] # there is a batch
        return lower_encoder(hidden[0](x) if hidden else x, tf.stop_gradient(context.z2))

    def refresh(self) -> None:
        self.lower_prior.refresh()
        self.prior.refresh()

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        x = self.first_input(histories)
        h = self.encoder.hidden(x)
        z2 = self.encoder.heads.mean(h)
        return self.lower_encoder.mean(x if self.reads_items else h, z2), z2

    def decode_from_prior(self, z: tf.Tensor) -> tf.Tensor:
        return self.decode(self.lower_base(z)[0], z)

    def terms(
        self,
        histories: tf.RaggedTensor,
        seed: tf.Tensor | None = None,
        rate: float = 0.0,
        weights: tf.Tensor | None = None,
        density: bool = False,
    ) -> ElboTerms:
        upper_seed, lower_seed, z2_seed, z1_seed, prior_seed = split_seed(seed, 5)
        h = self.encoder.hidden(self.first_input(histories, rate, upper_seed))
        parameters = self.encoder.heads(h)
        upper = diagonal_normal(*parameters)
        z2 = draw(upper, z2_seed)
        if self.reads_items:
            h = self.first_input(histories, rate, lower_seed)  # with dropout of its own
        lower = self.lower_encoder.posterior(h, z2)
        z1 = draw(lower, z1_seed)
        in_training = None if seed is None else parameters
        context = PriorContext(rate, prior_seed, in_training, lambda: self.first_input(histories), z2)
        if density:
            context = PriorContext(z2=z2)
        kl = upper.log_prob(z2) + lower.log_prob(z1)
        kl -= self.prior.distribution(context).log_prob(z2) + self.lower_prior.distribution(context).log_prob(z1)
        seed = None if density else seed
        return ElboTerms(self.log_likelihood(histories, z1, z2, seed=seed, weights=weights), kl)
