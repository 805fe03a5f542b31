"""How a run's data was split, in words."""

from collections.abc import Mapping
from typing import Any

from trainers.report.names import metric_name
from vae_cf_tf.evaluation.metrics import MAIN

_HOW = {
    "users": "Split by users: the model was not trained on the users it is judged on. The held-out items of a user are "
    "{targets}.",
    "time": "Split by time: the model was trained on events before {training_ends}. Test users are those with events "
    "before and after {cut}: what they did before is seen, what they did after is held out. Validation items lie "
    "between the two moments.",
    "given": "The data was split already.",
}
_TARGETS = {"random": "a random choice", "latest": "those that the user had last"}


def words(about: Mapping[str, Any]) -> str:
    """Sentences about a split, from `Split.about`; "" where nothing is known."""
    if about.get("by") not in _HOW:
        return ""
    targets = about.get("targets", "")
    how = _HOW[about["by"]].format(**{**about, "targets": _TARGETS.get(targets, targets)})
    later = about["training_has_later_events"]
    if later is None:
        return (
            f"{how} Whether training holds events later than those that are held out is not known: no times were read."
        )
    if not later:
        return how + " Training holds no event later than those that are held out."
    return (
        f"{how} Training holds events later than those that are held out: {about['training_later_share']:.0%} of its "
        "events are later than a held-out one, on average. A split by time (--split=time) does not have this advantage."
    )


def beside(metrics: Mapping[str, Any]) -> str:
    """Sentences about the run of --also_time_split, from metrics.json; "" where there is none."""
    if "time_split" not in metrics:
        return ""
    theirs = metrics["time_split"]
    ours = theirs["test"][MAIN]
    rivals = {b["label"]: b["test"][MAIN]["mean"] for b in theirs["baselines"]}
    told = ", ".join(f"{label} {value:.4f}" for label, value in rivals.items())
    return (
        f"The same settings, trained on events before {theirs['split']['training_ends']} and judged on those after "
        f"{theirs['split']['cut']}: {metric_name(MAIN)} {ours['mean']:.4f} ± {ours['stderr']:.4f}"
        + (f" ({told})." if told else ".")
    )
