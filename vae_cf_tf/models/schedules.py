"""The weight β of the KL term over training."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class KLAnnealing:
    """β = cap·min(1, t/warmup), linear in the step or the epoch (Liang et al. 2018, section 2.2).

    Args:
      cap: largest β.
      warmup: length of the warm-up in `unit`s; 0: β is `cap` from the start.
      unit: "step": t counts the steps taken before this one, as Liang et al.'s code; "epoch": t is the number of the
        running epoch, from 1, as Kim & Suh's.
      steps_per_epoch: steps in an epoch.
      epochs_before: epochs that count as done before the first step, for weights that were trained before.

    Examples:
      >>> beta = KLAnnealing(cap=0.2, warmup=10)
      >>> [round(float(beta(tf.constant(step))), 2) for step in (0, 5, 20)]
      [0.0, 0.1, 0.2]
    """

    cap: float
    warmup: float = 0.0
    unit: str = "step"
    steps_per_epoch: int = 1
    epochs_before: int = 0

    @property
    def warmup_epochs(self) -> float:
        """Epochs that are left of the warm-up at the first step; 0 where β stays 0."""
        if not self.cap:
            return 0.0
        length = self.warmup if self.unit == "epoch" else self.warmup / self.steps_per_epoch
        return max(0.0, length - self.epochs_before)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """β, float32 [], of the step that follows `step` (integer []) steps."""
        if not self.warmup:
            return tf.constant(self.cap, tf.float32)
        if self.epochs_before:
            step += self.epochs_before * self.steps_per_epoch
        t = step if self.unit == "step" else step // self.steps_per_epoch + 1
        return tf.constant(self.cap, tf.float32) * tf.minimum(1.0, tf.cast(t, tf.float32) / self.warmup)
