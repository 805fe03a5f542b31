"""Finds the axes of a model's variables that run over the items of the catalogue."""

from typing import NamedTuple

import keras

from vae_cf_tf.models import tree


class ItemAxis(NamedTuple):
    """The axis of a variable that runs over items.

    Attributes:
      variable: of a layer.
      axis: index of the axis.
      length: number of entries, from the first, that belong to items, in the catalogue's order. It is a multiple of the
        catalogue's size: a layer with several numbers per item has all items' first numbers, then all second ones.
    """

    variable: keras.Variable
    axis: int
    length: int


def of(model: keras.Model) -> dict[str, ItemAxis]:
    """The axes that the `item_axes` methods of a model's layers return, by the variable's path (`tree.variables`)."""
    found = [axis for layer in tree.layers(model).values() for axis in getattr(layer, "item_axes", list)()]
    by_variable = {id(axis.variable): axis for axis in found}
    return {path: by_variable[id(v)] for path, v in tree.variables(model).items() if id(v) in by_variable}
