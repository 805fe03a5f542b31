"""The report's sections but the latent space's; each returns its part of the page and its PNG files by name."""

import numpy as np

from trainers.report import figures, numbers, page
from trainers.report.run import OURS, Run, model_name
from vae_cf_tf import checkpoints, comparison
from vae_cf_tf.comparison import Estimate
from vae_cf_tf.item_path import Tried

METRICS = ("ndcg@100", "ndcg@10", "recall@20", "recall@50")
COVERAGE_AT = (10, 20, 50, 100)
FOUND_AT = 50
Part = tuple[page.Section, dict[str, bytes]]


def lead(run: Run, seed: int) -> list[page.Html]:
    """What the run is and how it did, in a few sentences."""
    c, split = run.config, run.split
    ours = comparison.estimate(run.values[OURS]["test"]["ndcg@100"], seed=seed)
    users = run.users["test"].fold_in.shape[0]
    said = (
        f"Test NDCG@100 {ours.mean:.4f} (95 % interval {ours.low:.4f} to {ours.high:.4f}) over {users:,} held-out users"
    )
    if run.rival:
        gain = _gain(run, "test", "ndcg@100", seed)
        word = "above" if gain.mean >= 0 else "below"
        sure = "" if gain.low * gain.high > 0 else ", a difference that may be chance"
        said += f", {abs(gain.mean):.4f} {word} {run.rival} on the same users "
        said += f"({signed(gain.low)} to {signed(gain.high)}){sure}"
    return [
        page.paragraph(said + "."),
        page.paragraph(
            f"{model_name(c)}: latent structure {c.latent}, prior {c.prior}, {c.block} blocks, L {c.layers}, "
            f"{c.likelihood} likelihood. Trained on {split.train.shape[0]:,} users and {len(split.item_ids):,} items "
            f"({split.train.nnz:,} interactions), seed {c.seed}; best epoch {run.metrics['best_epoch']} of "
            f"{run.metrics['epochs']}, {run.metrics['seconds_per_epoch']:.1f} s an epoch."
        ),
    ]


def training(run: Run) -> Part:
    """Loss parts, β and validation metrics over the epochs."""
    h, best = run.history, run.metrics["best_epoch"]
    epochs = len(h["epoch"])
    span = f"over {epochs} epochs"
    shown = [
        page.Plot(
            "training_metrics", "Validation metrics",
            f"Validation metrics {span}: NDCG@100 reaches {max(h['val_ndcg@100']):.3f} at epoch {best}.",
            figures.curves({"NDCG@100": h["val_ndcg@100"], "Recall@20": h["val_recall@20"],
                            "Recall@50": h["val_recall@50"]}, "mean over validation users", best),
        ),
        page.Plot(
            "training_nll", "Negative log-likelihood of a user",
            f"−log p(x|z) {span}: from {h['nll'][0]:.0f} to {h['nll'][-1]:.0f} in training, from {h['val_nll'][0]:.0f} "
            f"to {h['val_nll'][-1]:.0f} on validation.",
            figures.curves({"training": h["nll"], "validation": h["val_nll"], "training loss": h["loss"]},
                           "−log p(x|z), nats", best),
        ),
    ]  # fmt: skip
    if any(h["kl"]):
        shown += [
            page.Plot(
                "training_kl", "KL term of a user",
                f"KL {span}: from {h['kl'][0]:.0f} to {h['kl'][-1]:.0f} in training.",
                figures.curves({"training": h["kl"], "validation, at the mean": h["val_kl"]}, "KL, nats", best),
            ),
            page.Plot(
                "training_beta", "Weight of the KL term",
                f"β {span}: from {h['beta'][0]:.3f} to {h['beta'][-1]:.3f}, {h['beta'][best - 1]:.3f} in the best one.",
                figures.curves({"β": h["beta"]}, "β", best),
            ),
        ]  # fmt: skip
    body, files = page.plots(shown)
    said = (
        "Training figures are with dropout and one draw of z, over whole histories; validation figures are at the "
        "posterior mean, over the part of a history that the model sees. The weights that are kept are those of the "
        "best epoch."
    )
    if run.model.item_path is not None:
        tried = [Tried(*row) for row in checkpoints.read_meta(run.workdir.item_path)["tried"]]
        best_path = max(tried, key=lambda t: t.ndcg)
        said += (
            " The curves are of the deep model alone. The item path was made beside its best epoch and received the "
            f"weight {best_path.weight:.3g} and the popularity discount {best_path.discount:g}, the best of "
            f"{len(tried)} pairs on validation users: NDCG@100 {tried[0].ndcg:.4f} without the path, "
            f"{best_path.ndcg:.4f} with it."
        )
    return page.Section("Training", [page.paragraph(said), body]), files


def against_baselines(run: Run, seed: int) -> Part:
    """Metrics of all systems with intervals, and the paired differences."""
    body: list[page.Html] = []
    for part in ("test", "validation"):
        rows = [
            [name, *(_with_interval(comparison.estimate(run.values[name][part][m], seed=seed)) for m in METRICS)]
            for name in run.systems
        ]
        users = run.users[part].fold_in.shape[0]
        caption = f"{part.capitalize()}, {users:,} users: mean and 95 % interval"
        body.append(page.table(caption, ["", *map(_name, METRICS)], rows))
        gains = [
            [f"{OURS} − {name}", *(_signed(_paired(run, name, part, m, seed)) for m in METRICS)]
            for name in run.systems[1:]
        ]
        if gains:
            caption = f"{part.capitalize()}: paired difference on the same users, and 95 % interval"
            body.append(page.table(caption, ["", *map(_name, METRICS)], gains))
    found = {
        name: [comparison.estimate(run.values[name]["test"][m], seed=seed) for m in METRICS] for name in run.systems
    }
    plot = page.Plot(
        "metrics", "Test metrics with 95 % intervals",
        "Test metrics: " + "; ".join(
            f"{_name(m)} " + ", ".join(f"{name} {f[i].mean:.3f}" for name, f in found.items())
            for i, m in enumerate(METRICS)) + ".",
        figures.intervals([_name(m) for m in METRICS], found, "mean over test users"),
    )  # fmt: skip
    drawn, files = page.plots([plot])
    note = page.paragraph(
        "Intervals: bootstrap over users. They tell how far a figure would move with other users of the same kind, not "
        "with another seed of the training."
    )
    return page.Section("Beside the baselines", [note, drawn, *body]), files


def by_history(run: Run, seed: int) -> Part:
    """NDCG@100 by the length of the history that the model sees."""
    groups = numbers.by_history_length(run.users["test"].fold_in)
    found = {
        name: [comparison.estimate(run.values[name]["test"]["ndcg@100"][g.members], seed=seed) for g in groups]
        for name in run.systems
    }
    gains = {
        name: [
            comparison.paired_difference(
                run.values[OURS]["test"]["ndcg@100"][g.members],
                run.values[name]["test"]["ndcg@100"][g.members],
                seed=seed,
            )
            for g in groups
        ]
        for name in ([run.rival] if run.rival else [])
    }
    sizes = [f"{int(g.members.sum()):,}" for g in groups]
    return _grouped(
        "By length of history", "history_length", "items in the history", "users", groups, sizes, found, gains,
        "NDCG@100", "Test users by the number of items that the models see of them, in groups of about equal size.",
    )  # fmt: skip


def by_popularity(run: Run, seed: int) -> Part:
    """The share of held-out items that is found, by their popularity in training."""
    groups = numbers.by_popularity(run.split.train)
    target = run.users["test"].target
    counts = {
        name: [numbers.found_and_wanted(run.ranked[name]["test"][:, :FOUND_AT], target, g.members) for g in groups]
        for name in run.systems
    }
    kept = [i for i in range(len(groups)) if counts[OURS][i][1].sum()]  # a group may hold no held-out item
    groups = [groups[i] for i in kept]
    counts = {name: [pairs[i] for i in kept] for name, pairs in counts.items()}
    found = {name: [comparison.ratio(*pair, seed=seed) for pair in pairs] for name, pairs in counts.items()}
    gains = {
        name: [
            comparison.ratio(ours[0] - theirs[0], ours[1], seed=seed)
            for ours, theirs in zip(counts[OURS], counts[name], strict=True)
        ]
        for name in ([run.rival] if run.rival else [])
    }
    sizes = [f"{int(g.members.sum()):,}" for g in groups]
    return _grouped(
        "By popularity of the held-out items", "item_popularity", "training users of the item", "items", groups, sizes,
        found, gains, f"Found in the top {FOUND_AT}",
        f"The share of the test users' held-out items that is among a user's {FOUND_AT} first recommendations, by the "
        "number of training users who have the item. Each group of items holds about a fifth of all training "
        "interactions; the last is the few that most users have.",
    )  # fmt: skip


def catalogue(run: Run) -> Part:
    """Coverage and concentration of the recommendations."""
    items = len(run.split.item_ids)
    at20 = {name: numbers.times_recommended(lists["test"][:, :20], items) for name, lists in run.ranked.items()}
    covered = {
        name: [numbers.coverage(numbers.times_recommended(lists["test"][:, :k], items)) for k in COVERAGE_AT]
        for name, lists in run.ranked.items()
    }
    popular = np.bincount(run.split.train.indices, minlength=items)
    chosen = np.bincount(run.users["test"].target.indices, minlength=items)
    rows = [
        [name, *(f"{c:.1%}" for c in covered[name]), f"{numbers.gini(at20[name]):.3f}",
         f"{at20[name] @ popular / at20[name].sum():,.0f}"] for name in run.systems
    ]  # fmt: skip
    rows.append(["held-out items", *("–" for _ in COVERAGE_AT[:-1]), f"{numbers.coverage(chosen):.1%}",
                 f"{numbers.gini(chosen):.3f}", f"{chosen @ popular / chosen.sum():,.0f}"])  # fmt: skip
    head = ["", *(f"coverage@{k}" for k in COVERAGE_AT), "Gini@20", "popularity@20"]
    made = page.table(f"Lists of {run.users['test'].fold_in.shape[0]:,} test users, {items:,} items", head, rows)
    drawn, files = page.plots([
        page.Plot("coverage", "Catalogue coverage", "Coverage at k = 100: " + ", ".join(
            f"{name} {c[-1]:.0%}" for name, c in covered.items()) + ".", figures.coverages(covered, COVERAGE_AT)),
        page.Plot("concentration", "Concentration of the top 20", "Gini coefficient of the top 20: " + ", ".join(
            f"{name} {numbers.gini(c):.2f}" for name, c in at20.items()) + ".",
            figures.concentrations({name: numbers.concentration(c) for name, c in at20.items()})),
    ])  # fmt: skip
    note = page.paragraph(
        "coverage@k: the share of the catalogue that is in the top k of anyone. Gini@20: 0 where all items are "
        "recommended alike, 1 where one item is everything. popularity@20: training users of the mean recommended "
        "item. The last row has the items that these users really went on to choose, all of them."
    )
    return page.Section("Catalogue", [note, drawn, made]), files


def examples(run: Run, wanted: int, history: int = 12, shown: int = 10) -> Part | None:
    """Test users from the worst served to the best, with their history and what they are recommended."""
    if not wanted:
        return None
    users, values = run.users["test"], run.values[OURS]["test"]["ndcg@100"]
    order = np.argsort(values, kind="stable")
    chosen = order[np.unique(((np.arange(wanted) + 0.5) / wanted * len(order)).astype(int))]
    cards = []
    for number, user in enumerate(chosen, 1):
        seen, target = users.fold_in[user].indices, set(users.target[user].indices.tolist())
        more = f" … and {len(seen) - history:,} more" if len(seen) > history else ""
        best = run.ranked[OURS]["test"][user][:shown].tolist()
        rows = [page.element("li", _hit(run.title(i)) if i in target else run.title(i)) for i in best]
        hits = len(target.intersection(best))
        cards.append(page.element(
            "div", page.element("h3", f"User {number}: NDCG@100 {values[user]:.3f}"),
            page.paragraph(page.element("strong", "History: "), "; ".join(map(run.title, seen[:history])), more),
            page.paragraph(page.element("strong", "Recommended: "), f"{hits} of {len(target)} held-out items among "
                           f"the first {len(best)}"),
            page.element("ol", *rows)))  # fmt: skip
    note = page.paragraph(
        "Test users at even steps from the lowest NDCG@100 to the highest, so that good and bad cases show alike. ",
        _hit("Marked"), " items are ones that the user really went on to choose and that the model did not see.",
    )  # fmt: skip
    return page.Section("Example users", [note, page.element("div", *cards, class_="users")]), {}


def _grouped(
    title: str, name: str, label: str, of: str, groups: list[numbers.Group], sizes: list[str],
    found: dict[str, list[Estimate]], gains: dict[str, list[Estimate]], metric: str, note: str,
) -> Part:  # fmt: skip
    """A section on groups: a plot of all systems, and a table with the paired differences."""
    labels = [g.label for g in groups]
    rows = [
        [group, size, *(f"{found[s][i].mean:.4f}" for s in found), *(_signed(gains[s][i]) for s in gains)]
        for i, (group, size) in enumerate(zip(labels, sizes, strict=True))
    ]
    made = page.table(f"{metric}, and paired differences with 95 % intervals",
                      [label, of, *found, *(f"{OURS} − {s}" for s in gains)], rows)  # fmt: skip
    alt = f"{metric} by {label}: " + "; ".join(
        f"{group}: " + ", ".join(f"{s} {found[s][i].mean:.3f}" for s in found) for i, group in enumerate(labels)
    )
    height = 1.2 + 0.55 * len(groups)
    plot = page.Plot(name, f"{metric}, by {label}", alt + ".", figures.intervals(labels, found, metric), (4.8, height))
    drawn, files = page.plots([plot])
    return page.Section(title, [page.paragraph(note), drawn, made]), files


def _hit(title: str) -> page.Html:
    return page.element("span", "✓ ", title, page.element("span", " (held out)", class_="soft"), class_="hit")


def _paired(run: Run, name: str, part: str, metric: str, seed: int) -> Estimate:
    return comparison.paired_difference(run.values[OURS][part][metric], run.values[name][part][metric], seed=seed)


def _gain(run: Run, part: str, metric: str, seed: int) -> Estimate:
    return _paired(run, run.rival, part, metric, seed)


def _name(metric: str) -> str:
    return metric.replace("ndcg", "NDCG").replace("recall", "Recall")


def _with_interval(e: Estimate) -> page.Html:
    return _two_lines(f"{e.mean:.4f}", f"{e.low:.4f} to {e.high:.4f}")


def _signed(e: Estimate) -> page.Html:
    return _two_lines(signed(e.mean), f"{signed(e.low)} to {signed(e.high)}")


def _two_lines(figure: str, interval: str) -> page.Html:
    return page.Html(f'{figure}<br><span class="soft small">{interval}</span>')


def signed(value: float) -> str:
    """With its sign, and a minus as wide as a plus."""
    return f"{value:+.4f}".replace("-", "−")
