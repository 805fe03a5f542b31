"""Which axes of a model's variables are the catalogue's, as its layers say."""

from typing import NamedTuple

import keras

from vae_cf_tf.models import tree


class ItemAxis(NamedTuple):
    """The axis of a variable on which items lie.

    Attributes:
      variable: of a layer.
      axis: its number.
      length: how many of the axis' first entries are items, in the catalogue's order: the catalogue once, or several
        times one after the other where the layer has several numbers for each item.
    """

    variable: keras.Variable
    axis: int
    length: int


def of(model: keras.Model) -> dict[str, ItemAxis]:
    """The item axes of a model by the path of their variable (`tree.variables`): what each layer's `item_axes` says."""
    found = [axis for layer in tree.layers(model).values() for axis in getattr(layer, "item_axes", list)()]
    by_variable = {id(axis.variable): axis for axis in found}
    return {path: by_variable[id(v)] for path, v in tree.variables(model).items() if id(v) in by_variable}
