"""The main job of a worker that is not the chief: it trains with the others and writes nothing."""

from trainers import claim, job
from trainers.train import follow
from vae_cf_tf.data.load import load_split
from vae_cf_tf.say import Say
from vae_cf_tf.settings import Settings


def run(settings: Settings, given: frozenset[str], say: Say) -> None:
    """Reads the data and computes this worker's share of the training.

    Args:
      settings: of the run, equal to the chief's.
      given: the settings that the user named.
      say: receives the lines that a person reads.

    Raises:
      UserError: bad data, other settings or data than the chief's, a worker that is gone.
    """
    split = load_split(settings, say, given)
    claim.check_data(settings, split)
    job.agree(settings, split)
    follow(settings, split)
    say("The training has ended. Results are in the chief's workdir.")
