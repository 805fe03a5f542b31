"""The denoising autoencoder."""

import keras
import tensorflow as tf

from vae_cf_tf.models.base import Autoencoder, ElboTerms
from vae_cf_tf.models.decoders import Decoder
from vae_cf_tf.models.encoders import Bottleneck


@keras.saving.register_keras_serializable("vae_cf_tf")
class DAE(Autoencoder):
    """The denoising autoencoder, Mult-DAE for the multinomial likelihood (Liang et al. 2018, section 2.3): no latent
    distribution, no KL term, weight decay instead. Arguments as `Autoencoder`."""

    @staticmethod
    def title(prior_title: str) -> str:
        """The model's name in the papers."""
        return "Multi-DAE"

    def build_layers(self) -> None:
        s = self.settings
        self.encoder = Bottleneck(self.num_items, layers=s.layers, skips=s.encoder_skips, **self.shape, name="encoder")
        layers = s.layers - 1 if s.decoder_layers < 0 else s.decoder_layers
        self.decoder = Decoder(self.num_outputs, layers=layers, **self.shape, name="decoder")

    def latent(self, histories: tf.RaggedTensor) -> tuple[tf.Tensor, ...]:
        return (self.encoder(self.first_input(histories)),)

    def terms(
        self,
        histories: tf.RaggedTensor,
        seed: tf.Tensor | None = None,
        rate: float = 0.0,
        weights: tf.Tensor | None = None,
        density: bool = False,
    ) -> ElboTerms:
        code = self.encoder(self.first_input(histories, rate, seed))
        log_likelihood = self.log_likelihood(histories, code, seed=seed, weights=weights)
        return ElboTerms(log_likelihood, tf.zeros_like(log_likelihood))
