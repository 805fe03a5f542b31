"""A prior over the other users of a training batch."""

import tensorflow as tf
import tensorflow_probability as tfp

from vae_cf_tf.models import replicas
from vae_cf_tf.models.distributions import MixtureOfNormals
from vae_cf_tf.models.priors.base import PriorContext
from vae_cf_tf.models.priors.user_vamp import UserVampPrior

tfd = tfp.distributions


class BatchVampPrior(UserVampPrior):
    """In training, for each user of a batch: 1/(B−1) Σ_{b≠u} q(z|x_b), a mixture of the posteriors of the others.

    The optimal prior is the mixture of all users' posteriors. The VampPrior approximates it at K learned points
    (Tomczak & Welling 2018, equations 8 and 9). This prior estimates it from the batch's users. Their posteriors are
    computed anyway, so only the density is added. Differs from `UserVampPrior` in that components are new in every step
    and pass on gradients. Outside training, and for a batch of one user, it is a `UserVampPrior`.
    """

    title = "Vamp over the batch"

    def distribution(self, context: PriorContext = PriorContext()) -> tfd.Distribution:  # noqa: B008
        if context.posterior is None:
            return super().distribution(context)
        batch = replicas.current()
        places = batch.places(tf.shape(context.posterior[0])[0])
        posterior = tuple(batch.all_users(parameters) for parameters in context.posterior)
        size = tf.shape(posterior[0])[0]
        users = tf.convert_to_tensor(self.means), tf.convert_to_tensor(self.log_variances)
        means, log_variances = tf.cond(size > 1, lambda: posterior, lambda: users)
        return MixtureOfNormals(means, log_variances, left_out=tf.where(size > 1, places, -1))
