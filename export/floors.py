"""The least that a request can take: the bytes it must read and the multiply-adds of its products."""


def work(shapes: dict[str, tuple[int, ...]], items: int, batch: int, length: int) -> tuple[int, int]:
    """Weights that a request of `batch` histories of `length` items must read once, and its multiply-adds.

    Args:
      shapes: of the kernels that prediction reads; one of `items` rows is the first layer's, of which only the rows of
        the histories' items count (all distinct, at most the catalogue).
    """
    read = operations = 0
    for shape in shapes.values():
        rows, units = shape
        if rows == items:
            read += min(batch * length, items) * units
            operations += batch * length * units
        else:
            read += rows * units
            operations += batch * rows * units
    return read, operations
