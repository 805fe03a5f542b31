"""Settings of the evaluation and of the run's files."""

import dataclasses
import math
from typing import ClassVar

from vae_cf_tf.errors import UserError
from vae_cf_tf.settings.fields import Changes, Section, contradiction, setting


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(Section):
    """How models are judged, and the baselines beside them."""

    title: ClassVar[str] = "Evaluation"

    eval_batch_size: int = setting(500, "Users in an evaluation step.", low=1, changes=Changes.NOTHING)
    ease_l2: str = setting(
        "200,700,2000",
        "λ of the EASE baseline; of several, the best on validation is reported.",
        changes=Changes.NOTHING,
    )
    ease_max_items: int = setting(
        25_000,
        "Largest catalogue that EASE, a dense items × items matrix, is run on.",
        low=0,
        changes=Changes.NOTHING,
    )

    def check(self) -> None:
        _ = self.ease_l2_values

    @property
    def ease_l2_values(self) -> tuple[float, ...]:
        """The numbers in ease_l2. Raises UserError for anything else."""
        try:
            values = tuple(float(text) for text in self.ease_l2.split(","))
        except ValueError:
            values = ()
        if not values or not all(0 < value < math.inf for value in values):
            raise UserError(f"--ease_l2 takes positive numbers separated by commas. Received: {self.ease_l2!r}.")
        return values


@dataclasses.dataclass(frozen=True)
class RunSettings(Section):
    """Where the run writes."""

    title: ClassVar[str] = "Run"

    workdir: str = setting(
        "runs/default", "Folder of everything the run writes.", changes=Changes.NOTHING, is_path=True
    )
    export_dir: str = setting(
        "", "Folder of the exported SavedModel; empty: WORKDIR/export.", changes=Changes.NOTHING, is_path=True
    )
    also_time_split: bool = setting(
        False,
        "Also trains and judges the same settings with --split=time, in WORKDIR/time_split; metrics.json has both.",
        changes=Changes.NOTHING,
    )
    checkpoint_seconds: float = setting(15.0, "Least time between two checkpoints.", low=0, changes=Changes.NOTHING)

    distribute: str = setting(
        "none",
        "Devices that share each training step: none: one; mirrored: all GPUs of this machine; multi_worker: the "
        "machines that the environment variable TF_CONFIG names, each of which runs the same command.",
        "none",
        "mirrored",
        "multi_worker",
        changes=Changes.NOTHING,
    )
    replicas: int = setting(
        0,
        "With --distribute=mirrored: number of devices; 0: all GPUs. Without a GPU the CPU stands for as many devices, "
        "which is slower than one and serves to try it out.",
        low=0,
        changes=Changes.NOTHING,
    )

    def check(self) -> None:
        contradiction(
            "--replicas is the number of devices of --distribute=mirrored",
            self.replicas > 0 and self.distribute != "mirrored",
        )
        contradiction(
            "--also_time_split makes a second run, and --distribute=multi_worker makes one",
            self.also_time_split and self.distribute == "multi_worker",
        )
        if not self.workdir:
            raise UserError("--workdir is empty; give the folder that the run is to be written to.")
