"""Plots as PNG bytes: matplotlib without a display, in a light and a dark theme."""

import io
import itertools
import logging
from collections.abc import Callable
from typing import Any

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its font cache announces itself at the first import

import matplotlib  # noqa: E402

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

Draw = Callable[..., None]

SIZE = (4.0, 2.9)
"""Inches. So narrow that text of 10 points is still 11 to 12 pixels high where a phone shows the plot 350 wide."""

_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
}
_COLOURS = {  # background, text, grid, then the cycle C0 … C4
    "light": ("#ffffff", "#1f2328", "#d8dee4", ("#0b5fa5", "#c2410c", "#15803d", "#7c3aed", "#6b7280")),
    "dark": ("#161b22", "#e6edf3", "#30363d", ("#6cb6ff", "#ff9d5c", "#6fdd8b", "#c4a5ff", "#a1a1aa")),
}
THEMES = tuple(_COLOURS)


def png(
    draw: Draw, theme: str = "light", size: tuple[float, float] = SIZE, panels: int = 1, dpi: int = 200, rows: int = 1
) -> bytes:
    """A PNG of what `draw` draws. It receives `rows` × `panels` axes, row by row; those of a row share the y axis.

    `size` is in inches.
    """
    background, text, grid, cycle = _COLOURS[theme]
    colours = {name: text for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    colours |= {name: background for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor")}
    style: dict[Any, Any] = _STYLE | colours | {"grid.color": grid, "axes.prop_cycle": plt.cycler(color=cycle)}
    with plt.rc_context(style):
        figure, axes = plt.subplots(rows, panels, figsize=size, layout="constrained", sharey="row", squeeze=False)
        try:
            draw(*axes.flat)
            for each in axes.flat:
                separate_tick_labels(each)
            content = io.BytesIO()
            figure.savefig(content, format="png", dpi=dpi)
            return content.getvalue()
        finally:
            plt.close(figure)


def separate_tick_labels(axes: Axes) -> None:
    """Takes fewer ticks on a linear x axis until its labels lie apart.

    Matplotlib's own choice assumes labels that are three times as wide as high, and "−0.0050" is wider.
    """
    locator = axes.xaxis.get_major_locator()
    if not isinstance(locator, MaxNLocator):
        return
    figure: Any = axes.figure
    for most in (6, 5, 4, 3, 2):
        figure.draw_without_rendering()
        low, high = sorted(axes.get_xlim())
        labels = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        boxes = [label.get_window_extent() for label in labels]
        gap = figure.dpi / 16
        if all(right.x0 - left.x1 >= gap for left, right in itertools.pairwise(boxes)):
            return
        locator.set_params(nbins=most)
