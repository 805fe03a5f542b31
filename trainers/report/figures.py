"""The report's plots: each function returns a function that draws on one pair of axes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trainers.plotting import Draw
from vae_cf_tf.evaluation.significance import Estimate

MARKERS = "osD^v"
DASHES = ("-", "--", "-.", ":")
SMALL = 8.5
"""Points: the smallest text of a plot."""


def curves(lines: Mapping[str, Sequence[float]], label: str, best_epoch: int, subtitle: str = "") -> Draw:
    """Figures over epochs, from the first."""

    def draw(axes: Axes) -> None:
        for i, (name, values) in enumerate(lines.items()):
            axes.plot(np.arange(1, len(values) + 1), values, DASHES[i % 4], label=name, color=f"C{i}",
                      marker="o" if len(values) == 1 else None)  # fmt: skip
        axes.axvline(best_epoch, color="C4", linewidth=1, linestyle=(0, (2, 2)))
        axes.set(xlabel=f"epoch (dotted line: the best, {best_epoch})", ylabel=label, title=subtitle)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(values) == 1:
            axes.set_xticks([1])
        if len(lines) > 1:
            _legend_above(axes)

    return draw


def distribution(values: np.ndarray, label: str, of: str) -> Draw:
    """The share of users or items whose value is at most x; the median is marked."""

    def draw(axes: Axes) -> None:
        ordered, median = np.sort(values), np.median(values)
        axes.step(ordered, np.arange(1, len(ordered) + 1) / len(ordered), where="post")
        axes.plot(median, 0.5, "o", markersize=5)
        axes.annotate(f"median {median:,.0f}", (median, 0.5), xytext=(8, -4), textcoords="offset points")
        axes.set(xlabel=label, ylabel=f"share of {of}", ylim=(0, 1.02))
        if ordered[-1] > 10 * max(ordered[0], 1):
            axes.set_xscale("symlog", linthresh=1)  # an item of a data set that came split may have no training user
            axes.set_xlim(left=ordered[0])
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))

    return draw


def intervals(rows: Sequence[str], systems: Mapping[str, Sequence[Estimate]], label: str) -> Draw:
    """A dot with its interval for each system in each row, the first row at the top."""

    def draw(axes: Axes) -> None:
        centres = np.arange(len(rows))[::-1]
        step = 0.6 / max(len(systems), 1)
        for i, (name, estimates) in enumerate(systems.items()):
            y = centres + step * ((len(systems) - 1) / 2 - i)
            means = np.array([e.mean for e in estimates])
            spread = np.abs(np.array([(e.low, e.high) for e in estimates]).T - means)
            axes.errorbar(means, y, xerr=spread, fmt=MARKERS[i % 5], color=f"C{i}", label=name, capsize=2.5,
                          markersize=5, elinewidth=1.5)  # fmt: skip
        axes.set_yticks(centres, rows)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        _legend_above(axes)

    return draw


def coverages(shares: Mapping[str, Sequence[float]], at: Sequence[int]) -> Draw:
    """Share of the catalogue over the length k of the lists."""

    def draw(axes: Axes) -> None:
        for i, (name, values) in enumerate(shares.items()):
            axes.plot(at, values, DASHES[i % 4], marker=MARKERS[i % 5], markersize=4, color=f"C{i}", label=name)
        axes.set_xscale("log")
        axes.set_xticks(at, [str(k) for k in at])
        axes.minorticks_off()
        axes.set(xlabel="k, length of the lists", ylabel="share of the catalogue", ylim=(0, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _legend_above(axes)

    return draw


def concentrations(lines: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Draw:
    """The share of all recommendations that goes to the most recommended share of the catalogue."""

    def draw(axes: Axes) -> None:
        for i, (name, (x, y)) in enumerate(lines.items()):
            axes.plot(x, y, DASHES[i % 4], color=f"C{i}", label=name)
        axes.set(xlabel="share of the catalogue,\nmost recommended first", ylabel="share of recommendations",
                 xlim=(0, 0.5), ylim=(0, 1.02))  # fmt: skip
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        _legend_above(axes)

    return draw


def clouds(prior: np.ndarray, users: np.ndarray, labels: tuple[str, str]) -> Draw:
    """Draws of the prior under draws of the users' posteriors, float [n, 2] each."""

    def draw(axes: Axes) -> None:
        axes.plot(*prior.T, "x", markersize=3.5, markeredgewidth=0.8, color="C1", alpha=0.7, label="prior")
        axes.plot(*users.T, "o", markersize=2.6, markeredgewidth=0, color="C0", alpha=0.75, label="users")
        _plane(axes, labels)

    return draw


def means_and_components(
    users: np.ndarray, components: np.ndarray | None, shares: np.ndarray | None, numbered: Sequence[int],
    labels: tuple[str, str],
) -> Draw:  # fmt: skip
    """Users' posterior means, float [n, 2]; over them the prior's components, with areas by their shares of the users.

    The components whose indices are in `numbered` carry their index.
    """

    def draw(axes: Axes) -> None:
        axes.plot(*users.T, "o", markersize=2.6, markeredgewidth=0, color="C0", alpha=0.7, label="users")
        if components is None or shares is None:
            _plane(axes, labels)
            return
        areas, largest = 4 + 90 * shares / max(shares.max(), 1e-12), list(numbered)
        x, y = components.T
        axes.scatter(x, y, s=areas, facecolors="none", edgecolors="C1", linewidths=0.8, alpha=0.8,
                     label="components")  # fmt: skip
        if largest:
            axes.scatter(x[largest], y[largest], s=areas[largest], color="C2", zorder=3, label="in the table")
        _plane(axes, labels)
        _number(axes, components[largest], [str(k) for k in largest])

    return draw


def _number(axes: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Writes each name near its point, float [n, 2], clear of all these points and of the names before it.

    A name for which there is no place within the axes is left out.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # the layout is known only then
    pixels, pixel = axes.transData.transform(points), figure.dpi / 72  # pixels per typographic point
    taken = [(centre - 4 * pixel, centre + 4 * pixel) for centre in pixels]  # opposite corners
    around = np.array([(np.cos(turn), np.sin(turn)) for turn in np.deg2rad([20, 340, 160, 200, 90, 270, 50, 230])])
    offsets = np.concatenate([distance * around for distance in range(14, 140, 7)])
    for point, centre, name in zip(points, pixels, names, strict=True):
        label = axes.annotate(
            name, point, xytext=(0, 0), textcoords="offset points", fontsize=SMALL, fontweight="bold", ha="center",
            va="center", arrowprops={"arrowstyle": "-", "linewidth": 0.7, "color": "C2", "shrinkA": 0, "shrinkB": 0},
            bbox={"boxstyle": "round,pad=0.1", "facecolor": axes.get_facecolor(), "alpha": 0.8, "edgecolor": "none"},
        )  # fmt: skip
        box = label.get_window_extent()
        half = np.array([box.width, box.height]) / 2 + pixel
        low, high = centre + offsets * pixel - half, centre + offsets * pixel + half  # [offsets, 2]
        inside = np.all((low > axes.bbox.min) & (high < axes.bbox.max), axis=1)
        lows, highs = (np.array(corners) for corners in zip(*taken, strict=True))
        free = inside & ~np.all((low[:, None] < highs) & (high[:, None] > lows), axis=2).any(axis=1)
        if free.any():
            best = free.argmax()
            label.xyann = tuple(offsets[best])
            taken.append((low[best], high[best]))
        else:
            label.remove()


def _plane(axes: Axes, labels: tuple[str, str]) -> None:
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_aspect("equal", adjustable="datalim")
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """The legend above the axes, in as many columns as are likely to fit."""
    letters = sum(len(name) + 5 for name in axes.get_legend_handles_labels()[1])
    axes.figure.legend(loc="outside upper left", ncols=3 if letters <= 46 else 2, borderaxespad=0.2, handletextpad=0.4,
                       columnspacing=1.0, handlelength=1.6)  # fmt: skip
