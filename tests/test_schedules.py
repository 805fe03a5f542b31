import numpy as np
import pytest

from vae_cf_tf.models.schedules import KLAnnealing


@pytest.mark.parametrize(
    ("annealing", "betas"),
    [
        # Kim & Suh's code: cap · epoch / warm-up, epochs from 1; three steps an epoch
        (KLAnnealing(0.3, 2, "epoch", 3), [0.15, 0.15, 0.15, 0.3, 0.3, 0.3, 0.3]),
        # Liang et al.'s code: min(.2, step / 40) for a cap of .2 and 8 steps
        (KLAnnealing(0.2, 8, "step", 3), [0, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.2]),
        (KLAnnealing(0.2, 0, "epoch", 3), [0.2, 0.2]),
    ],
)
def test_beta_follows_the_published_schedules(annealing, betas):
    np.testing.assert_allclose([annealing(np.int64(step)) for step in range(len(betas))], betas, rtol=1e-6)
