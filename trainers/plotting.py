"""Plots as PNG bytes: matplotlib without a display, in a light and a dark theme."""

import io
import logging
from collections.abc import Callable

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its font cache announces itself at the first import

import matplotlib  # noqa: E402

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

Draw = Callable[..., None]

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
}
_COLOURS = {  # background, text, grid, then the cycle C0 … C4
    "light": ("#ffffff", "#1f2328", "#d8dee4", ("#0b5fa5", "#c2410c", "#15803d", "#7c3aed", "#6b7280")),
    "dark": ("#161b22", "#e6edf3", "#30363d", ("#6cb6ff", "#ff9d5c", "#6fdd8b", "#c4a5ff", "#a1a1aa")),
}
THEMES = tuple(_COLOURS)


def png(
    draw: Draw, theme: str = "light", size: tuple[float, float] = (4.8, 3.3), panels: int = 1, dpi: int = 200
) -> bytes:
    """What `draw` puts on a pair of axes, or on several side by side that share y; `size` in inches."""
    background, text, grid, cycle = _COLOURS[theme]
    colours = {name: text for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")}
    colours |= {name: background for name in ("figure.facecolor", "axes.facecolor", "savefig.facecolor")}
    with plt.rc_context(_STYLE | colours | {"grid.color": grid, "axes.prop_cycle": plt.cycler(color=cycle)}):
        figure, axes = plt.subplots(1, panels, figsize=size, layout="constrained", sharey=True, squeeze=False)
        try:
            draw(*axes[0])
            made = io.BytesIO()
            figure.savefig(made, format="png", dpi=dpi)
            return made.getvalue()
        finally:
            plt.close(figure)
