"""The report's plots: functions that make a function that draws on one pair of axes."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from trainers.plotting import Draw
from vae_cf_tf.comparison import Estimate

MARKERS = "osD^v"
DASHES = ("-", "--", "-.", ":")


def curves(lines: Mapping[str, Sequence[float]], label: str, marked: int | None = None) -> Draw:
    """Figures over epochs, from the first; `marked` is the best epoch."""

    def draw(axes: Axes) -> None:
        for i, (name, values) in enumerate(lines.items()):
            axes.plot(np.arange(1, len(values) + 1), values, DASHES[i % 4], label=name, color=f"C{i}",
                      marker="o" if len(values) == 1 else None)  # fmt: skip
        if marked:
            axes.axvline(marked, color="C4", linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(f"best epoch {marked}", (marked, 1), xycoords=("data", "axes fraction"), fontsize=8.5,
                          xytext=(0, 2), textcoords="offset points", ha="center")  # fmt: skip
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            axes.legend(loc="best")

    return draw


def intervals(rows: Sequence[str], systems: Mapping[str, Sequence[Estimate]], label: str) -> Draw:
    """A dot with its interval for each system in each row, the first row at the top."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(rows))[::-1]
        step = 0.6 / max(len(systems), 1)
        for i, (name, found) in enumerate(systems.items()):
            y = places + step * ((len(systems) - 1) / 2 - i)
            means = np.array([f.mean for f in found])
            spread = np.abs(np.array([(f.low, f.high) for f in found]).T - means)
            axes.errorbar(means, y, xerr=spread, fmt=MARKERS[i % 5], color=f"C{i}", label=name, capsize=2.5,
                          markersize=5, elinewidth=1.5)  # fmt: skip
        axes.set_yticks(places, rows)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(label)
        axes.grid(axis="y", visible=False)
        _legend_above(axes)

    return draw


def coverages(found: Mapping[str, Sequence[float]], at: Sequence[int]) -> Draw:
    """Share of the catalogue over the length k of the lists."""

    def draw(axes: Axes) -> None:
        for i, (name, values) in enumerate(found.items()):
            axes.plot(at, values, DASHES[i % 4], marker=MARKERS[i % 5], markersize=4, color=f"C{i}", label=name)
        axes.set_xscale("log")
        axes.set_xticks(at, [str(k) for k in at])
        axes.minorticks_off()
        axes.set(xlabel="k, length of the lists", ylabel="share of the catalogue", ylim=(0, None))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        _legend_above(axes)

    return draw


def concentrations(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Draw:
    """Which share of all recommendations the most recommended share of the catalogue gets."""

    def draw(axes: Axes) -> None:
        for i, (name, (x, y)) in enumerate(found.items()):
            axes.plot(x, y, DASHES[i % 4], color=f"C{i}", label=name)
        axes.set(xlabel="share of the catalogue, most recommended first", ylabel="share of recommendations",
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
    users: np.ndarray, components: np.ndarray | None, shares: np.ndarray | None, named: Sequence[int],
    labels: tuple[str, str],
) -> Draw:  # fmt: skip
    """Users' posterior means; over them the prior's components, of an area by their share of the users, those `named`
    with their number."""

    def draw(axes: Axes) -> None:
        axes.plot(*users.T, "o", markersize=2.6, markeredgewidth=0, color="C0", alpha=0.7, label="users' means")
        if components is not None:
            axes.scatter(*components.T, s=4 + 90 * shares / max(shares.max(), 1e-12), facecolors="none",
                         edgecolors="C1", linewidths=0.8, alpha=0.8, label="components")  # fmt: skip
            axes.scatter(*components[list(named)].T, s=4 + 90 * shares[list(named)] / max(shares.max(), 1e-12),
                         color="C2", zorder=3, label="those in the table")  # fmt: skip
            _plane(axes, labels)
            _number(axes, components[list(named)], [str(k) for k in named])
        else:
            _plane(axes, labels)

    return draw


def _number(axes: Axes, points: np.ndarray, names: Sequence[str]) -> None:
    """Writes each name near its point, clear of the names before it where one of eight places is."""
    axes.figure.draw_without_rendering()  # the layout is known only then
    taken: list = []
    around = [(6, 3), (6, -9), (-6, 3), (-6, -9), (0, 10), (0, -16), (14, 12), (-14, 12)]
    for point, name in zip(points, names, strict=True):
        for dx, dy in around:
            made = axes.annotate(name, point, xytext=(dx, dy), textcoords="offset points", fontsize=8,
                                 fontweight="bold", ha="left" if dx > 0 else "right" if dx < 0 else "center",
                                 bbox={"boxstyle": "round,pad=0.1", "facecolor": axes.get_facecolor(), "alpha": 0.75,
                                       "edgecolor": "none"})  # fmt: skip
            box = made.get_window_extent()
            if not any(box.overlaps(other) for other in taken) or (dx, dy) == around[-1]:
                taken.append(box)
                break
            made.remove()


def _plane(axes: Axes, labels: tuple[str, str]) -> None:
    axes.set(xlabel=labels[0], ylabel=labels[1])
    axes.set_aspect("equal", adjustable="datalim")
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handletextpad=0.3,
                columnspacing=1.0)  # fmt: skip
