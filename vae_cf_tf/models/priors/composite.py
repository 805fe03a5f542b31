"""RecVAE's composite prior, over any other prior."""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow_probability as tfp

from vae_cf_tf.models.distributions import composite
from vae_cf_tf.models.priors.base import Gaussian, Prior, PriorContext, PseudoInputs, unowned

tfd = tfp.distributions


class CompositePrior(Prior):
    """A mixture of a base prior, the user's own posterior under the encoder of the last `refresh`, and a wide Gaussian
    (Shenbin et al. 2020, equation 9; see `composite`).

    Without a batch of users it is the base prior.

    Args:
      base: any prior.
      networks: those that give the posterior. The prior keeps frozen copies of them, and `refresh` updates the copies.
      posterior: from the copies and the context to mean and log-variance of the users' posteriors.
      share: weight of the own posterior, from 0 to 1.
    """

    def __init__(
        self,
        base: Prior,
        networks: Sequence[keras.layers.Layer],
        posterior: Callable[[Sequence[keras.layers.Layer], PriorContext], Gaussian],
        share: float,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.base, self.share, self._posterior = base, share, posterior
        self._originals = [unowned_reference(network) for network in networks]
        self.previous = [frozen_copy(network) for network in networks]

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        base = self.base.distribution(context)
        if context.first_input is None:
            return base
        return composite(base, self._posterior(self.previous, context), self.share)

    def refresh(self) -> None:
        for copy, original in zip(self.previous, self._originals, strict=True):
            for variable, present in zip(copy.variables, original().variables, strict=True):
                variable.assign(present)
        self.base.refresh()

    def pseudo_inputs_of(self, components: np.ndarray) -> PseudoInputs | None:
        return self.base.pseudo_inputs_of(components)


def unowned_reference(layer: keras.layers.Layer) -> Callable[[], keras.layers.Layer]:
    """A function that returns the layer, so that Keras does not count its weights as the caller's."""
    return unowned(lambda: layer)


def frozen_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A layer of the same kind whose weights are zeros until they are assigned, and do not learn."""
    config = layer.get_config() | {"initializer": "zeros", "name": f"previous_{layer.name}"}
    copy = type(layer).from_config(config)
    copy.trainable = False
    return copy
