"""The layers and the variables of a model by their path. The only file that uses private names of Keras' layers."""

import keras

Variables = dict[str, keras.Variable]


def layers(root: keras.Layer) -> dict[str, keras.Layer]:
    """All layers within a layer or model by their path, such as "encoder/heads/mean"; the root itself is "".

    A layer that two others hold is named once.
    """
    found: dict[str, keras.Layer] = {}
    seen: set[int] = set()

    def visit(layer: keras.Layer, path: str) -> None:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        found[path] = layer
        for child in layer._flatten_layers(include_self=False, recursive=False):
            visit(child, f"{path}/{child.name}".lstrip("/"))

    visit(root, "")
    return found


def variables(root: keras.Layer) -> Variables:
    """All variables within a layer or model by the path of their layer and their name."""
    return {
        f"{path}/{variable.name}".lstrip("/"): variable
        for path, layer in layers(root).items()
        for variable in layer._trainable_variables + layer._non_trainable_variables
    }
