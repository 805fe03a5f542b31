"""Checkpoints: all variables of a run and the little else it needs to go on, in one file that is whole or absent.

A checkpoint is an uncompressed .npz: the variables' values by name, and `meta`, a JSON text. Its container carries a
checksum of every array, so that damage is noticed.
"""

import contextlib
import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_cf_tf import arrays
from vae_cf_tf.errors import UserError
from vae_cf_tf.files import written_aside

if TYPE_CHECKING:  # what a checkpoint says of itself can be read without TensorFlow
    import keras

    from vae_cf_tf.models.tree import Variables


class Meta(dict[str, Any]):
    """What a checkpoint holds beside its variables. A name that it lacks is a UserError.

    Args:
      path: of the checkpoint.
      values: by name.
    """

    def __init__(self, path: str | os.PathLike, values: Mapping[str, Any]):
        super().__init__(values)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise UserError(
            f"The checkpoint {self._path} has no {name}: another version of the package wrote it. Delete it to train "
            "from the start, or restore a copy."
        )


def optimizer_variables(optimizer: "keras.Optimizer") -> "Variables":
    """The optimiser's step and moments."""
    return {f"optimizer/{i:03d}_{v.name}": v for i, v in enumerate(optimizer.variables)}


def save(path: str | os.PathLike, variables: "Variables", meta: dict[str, Any]) -> None:
    """Writes the variables' values and `meta` as `path`: aside first, then renamed."""
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w") as archive:  # what np.savez writes, array by array
        for name in ("meta", *variables):
            value = np.asarray(json.dumps(meta) if name == "meta" else variables[name].value.read_value())
            with archive.open(f"{name}.npy", "w", force_zip64=True) as f:
                np.lib.format.write_array(f, value, allow_pickle=False)


def load(path: str | os.PathLike, variables: "Variables") -> Meta:
    """Assigns what `path` holds to the variables and returns its `meta`.

    Raises:
      UserError: the file is missing or damaged, or belongs to another model.
    """
    with _opened(path) as archive:
        for name, variable in variables.items():
            value = archive.get(name)
            if value is None or value.shape != tuple(variable.shape):
                raise UserError(
                    f"The checkpoint {path} has no {name} of shape {tuple(variable.shape)}: it belongs to another "
                    "model. Give the run another --workdir."
                )
            variable.assign(value)
        return Meta(path, json.loads(str(archive["meta"])))


def read_meta(path: str | os.PathLike) -> Meta:
    """The checkpoint's `meta` alone. Raises UserError where the file is missing or damaged."""
    with _opened(path) as archive:
        return Meta(path, json.loads(str(archive["meta"])))


def read(path: str | os.PathLike, name: str) -> np.ndarray:
    """The value of one variable. Raises UserError where the file does not hold it."""
    with _opened(path) as archive:
        if name in archive:
            return archive[name]
    raise UserError(f"The checkpoint {path} has no {name}: it belongs to another model.")


def place(state: Mapping[str, Any]) -> str:
    """Where the run of a checkpoint goes on, for people, from its `meta`."""
    if partial := state.get("partial"):
        return f"in epoch {len(state['rows']) + 1} after {partial['steps']:,} steps"
    return f"after epoch {len(state['rows'])}"


def digest(path: str | os.PathLike) -> str:
    """16 hexadecimal digits that checkpoints of equal variables share: from the checksums that the file carries.

    `meta` is left out: it may hold what no two processes share, such as peak memory.

    Raises:
      UserError: the file is missing or damaged.
    """
    with _opened(path) as archive:
        parts = [[part.filename, part.CRC, part.file_size] for name, part in archive.entries.items() if name != "meta"]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[arrays.Arrays]:
    try:
        with arrays.opened(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise UserError(f"The checkpoint {path} is missing. Train the run first, or restore a copy.") from error
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise UserError(
            f"The checkpoint {path} is damaged ({error}). Delete it to train from the start, or restore a copy."
        ) from error
