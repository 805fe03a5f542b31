"""assets.extra/model_card.json: what a SavedModel version is, for whoever finds it on a server."""

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

import vae_cf_tf
from vae_cf_tf.config import Config
from vae_cf_tf.errors import UserError
from vae_cf_tf.workdir import Workdir

NAME = "model_card.json"
_HISTORIES = (
    "none: the warm-up requests are items drawn at random from the catalogue, and pseudo-inputs, which may start from "
    "training users or be their histories, stay in the run; an item path is made of sums over all training users"
)


def of_run(workdir: Workdir, config: Config, fingerprint: str) -> dict[str, Any]:
    """What the card says about training: settings, data, and metrics where the run has been judged."""
    facts: dict[str, Any] = {
        "config": config.figures_depend_on(),
        "data_fingerprint": fingerprint,
        "metrics": None,
        "best_epoch": None,
    }
    if workdir.metrics.exists():
        found = json.loads(workdir.metrics.read_text())
        facts["metrics"] = {part: found[part] for part in ("test", "validation")}
        facts["best_epoch"] = found["best_epoch"]
    return facts


def write(
    path: Path,
    version: Path,
    signatures: dict[str, Any],
    item_ids: list[str],
    weights: str,
    variables: list[tf.Variable],
    facts: dict[str, Any],
) -> None:
    """Writes the card of the SavedModel in `version`, complete but for the card itself."""
    sizes = {str(p.relative_to(version)): p.stat().st_size for p in sorted(version.rglob("*")) if p.is_file()}
    card = {
        "package": f"vae_cf_tf {vae_cf_tf.__version__}",
        "tensorflow": tf.__version__,
        "items": len(item_ids),
        "first_items": item_ids[:3],
        "weights": weights,
        "parameters": sum(v.shape.num_elements() for v in variables),
        "signatures": {name: _described(function) for name, function in signatures.items()},
        "bytes": sizes,
        "user_histories": _HISTORIES,
        **facts,
    }
    path.write_text(json.dumps(card, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _described(function: Any) -> dict[str, dict[str, str]]:
    inputs = {spec.name: spec for spec in function.structured_input_signature[1].values()}
    inputs |= {spec.name: spec for spec in function.structured_input_signature[0]}
    return {
        "inputs": {name: _spec(spec) for name, spec in inputs.items()},
        "outputs": {name: _spec(spec) for name, spec in function.structured_outputs.items()},
    }


def _spec(spec: Any) -> str:
    return f"{spec.dtype.name} [{', '.join('?' if d is None else str(d) for d in spec.shape.as_list())}]"


def version_in(folder: Path) -> Path:
    """`folder` where it is a SavedModel, else its newest version.

    Raises:
      UserError: there is neither.
    """
    if (folder / "saved_model.pb").is_file():
        return folder
    newest = newest_version(folder)
    if newest is None:
        raise UserError(f"{folder} is no SavedModel and holds no version of one. Give what export.main wrote.")
    return newest


def newest_version(folder: Path) -> Path | None:
    """The version of the largest number in a model's folder, if there is any."""
    versions = [path for path in folder.iterdir() if path.name.isdecimal()] if folder.is_dir() else []
    return max(versions, key=lambda path: int(path.name), default=None)


def read(version: Path) -> dict[str, Any]:
    """The card of a SavedModel version."""
    path = version / "assets.extra" / NAME
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{version} has no readable model card ({path.name}). Give what export.main wrote.") from error


def signature_lines(card: dict[str, Any]) -> list[str]:
    """A line a signature: name: inputs → outputs."""
    return [f"{name}: {_list(s['inputs'])} → {_list(s['outputs'])}" for name, s in sorted(card["signatures"].items())]


def _list(specs: dict[str, str]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())


def text(card: dict[str, Any]) -> str:
    """The card for a person."""
    lines = [
        f"{card['package']}, TensorFlow {card['tensorflow']}",
        f"Items: {card['items']:,}; parameters: {card['parameters']:,} as {card['weights']}",
        f"Data fingerprint: {card['data_fingerprint']}",
        f"Users' histories in it: {card['user_histories']}",
        "\nSignatures",
        *(f"  {line}" for line in signature_lines(card)),
        "\nMetrics, mean ± standard error over users" + ("" if card["metrics"] else ": the run was not judged"),
    ]
    for part, values in (card["metrics"] or {}).items():
        lines += [f"  {part:10} {name:10} {v['mean']:.4f} ± {v['stderr']:.4f}" for name, v in values.items()]
    lines += ["\nSizes in bytes", *(f"  {size:>13,}  {name}" for name, size in card["bytes"].items())]
    lines += ["\nSettings", *(f"  --{name}={value}" for name, value in (card["config"] or {}).items())]
    return "\n".join(lines)
