"""assets.extra/model_card.json: what a SavedModel version is, for whoever finds it on a server."""

from pathlib import Path
from typing import Any

from export import versions
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import read_json, sha256, write_json
from vae_cf_tf.registries import SIGNATURES
from vae_cf_tf.version import VERSION

NAME = "model_card.json"
_WHAT_TO_DO = "Export the run again, or restore a copy."
_HISTORIES = (
    "none: the warm-up requests are items drawn at random from the catalogue, and pseudo-inputs, which may start from "
    "training users or be their histories, stay in the run; an item–item model is made of sums over all training users"
)


def write(
    path: Path,
    version: Path,
    signatures: dict[str, Any],
    item_ids: list[str],
    about: dict[str, Any],
) -> None:
    """Writes the card of the SavedModel in `version`, complete but for the card itself.

    Args:
      path: of the card.
      version: the folder it describes.
      signatures: shapes of inputs and outputs by name.
      item_ids: raw id of each column.
      about: the rest of what it says: of the export and of the training.
    """
    files = _files(version)
    card = {
        "package": f"vae_cf_tf {VERSION}",
        "items": len(item_ids),
        "first_items": item_ids[:3],
        "signatures": signatures,
        "bytes": {name: p.stat().st_size for name, p in files.items()},
        "sha256": {name: sha256(p) for name, p in files.items()},
        "user_histories": _HISTORIES,
        **about,
    }
    write_json(path, card, ensure_ascii=False)


def _files(version: Path) -> dict[str, Path]:
    """The files of a version by name, without its card."""
    found = {str(p.relative_to(version)): p for p in sorted(version.rglob("*")) if p.is_file()}
    return {name: p for name, p in found.items() if p.name != NAME}


def verify(version: Path) -> int:
    """Compares every file of a version with the checksums in its card; returns their number.

    Raises:
      UserError: a file is damaged, missing or not of the export; or the card is damaged, or of a version of the package
        that wrote no checksums.
    """
    card, files = read(version), _files(version)
    if not isinstance(card.get("sha256"), dict):
        raise UserError(f"The card of {version} has no checksums: version 0.1 of the package wrote it. Export again.")
    for name in sorted(card["sha256"].keys() | files.keys()):
        if name not in files:
            raise UserError(f"{version / name} is missing. {_WHAT_TO_DO}")
        if name not in card["sha256"]:
            raise UserError(f"{version / name} is no file of the export. Remove it, or export again.")
        if sha256(files[name]) != card["sha256"][name]:
            raise UserError(f"{version / name} is damaged: its checksum is not the card's. {_WHAT_TO_DO}")
    return len(files) + 1


def check(version: Path) -> None:
    """As `verify`, before a version is asked for figures. One without a card, or of version 0.1, is taken as it is."""
    if (version / "assets.extra" / NAME).exists() and "sha256" in read(version):
        verify(version)


def is_whole(version: Path) -> bool:
    """Whether `verify` finds nothing."""
    try:
        return verify(version) > 0
    except UserError:
        return False


def version_of(folder: Path, model_id: str, weights: str, top_k: int) -> Path | None:
    """The newest undamaged version with this model, `weights` and `top_k`, all signatures and metrics; else None."""
    for version in versions.of(folder):
        try:
            card = read(version)
        except UserError:  # another program's, or damaged
            continue
        same = (card.get("model_id"), card["weights"], card.get("top_k")) == (model_id, weights, top_k)
        has_all = set(SIGNATURES.names()) <= set(card["signatures"])  # an earlier package had fewer
        if same and has_all and card["metrics"] and is_whole(version):
            return version
    return None


def read(version: Path) -> dict[str, Any]:
    """The card of a SavedModel version.

    Raises:
      UserError: there is none, or it is damaged.
    """
    path = version / "assets.extra" / NAME
    try:
        card = read_json(path)
        _ = card["first_items"], text(card)  # what a person is told of it
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{version} has no readable model card ({path.name}). Give what export.main wrote.") from error
    return card


def signature_lines(card: dict[str, Any]) -> list[str]:
    """A line a signature: name: inputs → outputs."""
    return [f"{name}: {_list(s['inputs'])} → {_list(s['outputs'])}" for name, s in sorted(card["signatures"].items())]


def _list(specs: dict[str, str]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())


def text(card: dict[str, Any]) -> str:
    """The card for a person."""
    lines = [
        f"{card['package']}, TensorFlow {card.get('tensorflow')}",
        f"Items: {card['items']:,}; parameters: {card['parameters']:,} as {card['weights']}",
        f"Data fingerprint: {card['data_fingerprint']}; weights: {card.get('model_id')}",
        f"Users' histories in it: {card['user_histories']}",
        "\nSignatures",
        *(f"  {line}" for line in signature_lines(card)),
        "\nMetrics, mean ± standard error over users" + ("" if card["metrics"] else ": the run was not judged"),
    ]
    for part, values in (card["metrics"] or {}).items():
        lines += [f"  {part:10} {name:10} {v['mean']:.4f} ± {v['stderr']:.4f}" for name, v in values.items()]
    if card.get("note"):
        lines.append(f"  {card['note']}")
    lines += ["\nSizes in bytes", *(f"  {size:>13,}  {name}" for name, size in card["bytes"].items())]
    lines += ["\nSettings", *(f"  --{name}={value}" for name, value in (card["config"] or {}).items())]
    return "\n".join(lines)
