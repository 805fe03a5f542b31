"""The report's sections about data, training, quality and recommendations; the latent space has a file of its own."""

from collections.abc import Callable, Sequence

import numpy as np

from trainers.report import figures, numbers, protocol
from trainers.report.names import DECIDES, METRICS, OURS, metric_name
from trainers.report.page import Block, Interval, Plot, Recommended, Section, Table, Text, User, Users
from trainers.report.reasons import owed_to
from trainers.report.run import Run
from vae_cf_tf.data.split import PARTS
from vae_cf_tf.evaluation import significance
from vae_cf_tf.evaluation.significance import Estimate

COVERAGE_AT = (10, 20, 50, 100)
FOUND_AT = 50


def lead(run: Run, seed: int) -> list[str]:
    """What was done and how well it went, for a reader who knows nothing of the project."""
    split, users = run.split, run.users["test"]
    share = users.fold_in.nnz / (users.fold_in.nnz + users.target.nnz)
    ours = significance.estimate(run.values[OURS]["test"][DECIDES], seed=seed)
    result = (
        f"Result: {metric_name(DECIDES)} is {ours.mean:.4f} on the test users (95% interval {ours.low:.4f} to "
        f"{ours.high:.4f}), where 1 would be a perfect list for everyone."
    )
    for rival in run.rivals:
        gain = _gain(run, rival, DECIDES, seed)
        result += (
            f" {rival}, the best baseline, has {run.values[rival]['test'][DECIDES].mean():.4f} on the same users: "
            f"this model is {abs(gain.mean):.4f} {'better' if gain.mean >= 0 else 'worse'} (95% interval of "
            f"the difference {signed(gain.low)} to {signed(gain.high)})"
            f"{'' if gain.excludes_zero else ', which may be chance'}."
        )
    others = "users, by what they did later" if split.about.get("by") == "time" else "other users"
    return [
        f"This page describes one training run of a recommender, {run.name}. It learned from "
        f"{split.train.shape[0]:,} users which of {len(split.item_ids):,} items they chose. Then it was tested on "
        f"{users.fold_in.shape[0]:,} {others}: it saw about {share:.0%} of each one's items and made a list of "
        "recommendations. A good list has the user's remaining items, the held-out items, near its top.",
        result,
    ]


def data(run: Run) -> Section:
    """Sizes, lengths of histories and popularity of items."""
    train = run.split.train
    users, items = train.shape
    popularity = np.bincount(train.indices, minlength=items)
    lengths = {"training users": np.diff(train.indptr)}
    for part in reversed(PARTS):
        lengths[f"{part} users, seen"] = np.diff(run.users[part].fold_in.indptr)
        lengths[f"{part} users, held out"] = np.diff(run.users[part].target.indptr)
    rows = [
        [name, f"{len(n):,}", f"{n.sum():,}", f"{np.median(n):,.0f}", f"{n.mean():,.1f}", f"{n.max():,}"]
        for name, n in lengths.items()
    ]
    ordered = np.sort(popularity)[::-1]
    top = {share: ordered[: max(1, round(share * items))].sum() / train.nnz for share in (0.01, 0.1)}
    seen, few = lengths["training users"], np.quantile(lengths["training users"], 0.1, method="lower")
    source = run.settings.data.data or run.settings.data.dataset or "the embedded, generated data set"
    return Section("Data", [
        [Text(
            f"Data: {source}. Density: {train.nnz / (users * items):.2%} of all pairs of a training user and an item "
            f"are interactions. The most popular 1% of the items have {top[0.01]:.0%} of the training interactions, "
            f"the most popular 10% have {top[0.1]:.0%}."
        )],
        *([Text(words)] for words in (protocol.words(run.split.about), protocol.beside(run.metrics)) if words),
        [Plot(
            "data_lengths", "Length of histories",
            f"The curve's height at n is the share of training users who have at most n items. Half have at most "
            f"{np.median(seen):,.0f}, a tenth have at most {few:,}.",
            f"Items of a training user: from {seen.min():,} to {seen.max():,}, median {np.median(seen):,.0f}.",
            figures.distribution(seen, "items of a user", "users"),
        ), Plot(
            "data_popularity", "Popularity of items",
            "The curve's height at n is the share of items that at most n training users have. Half have at most "
            f"{np.median(popularity):,.0f} users.",
            f"Training users of an item: from {ordered[-1]:,} to {ordered[0]:,}, median {np.median(popularity):,.0f}.",
            figures.distribution(popularity, "training users of an item", "items"),
        )],
        [Table("Users and their items",
               ["", "users", "interactions", "median per user", "mean per user", "most per user"], rows)],
    ])  # fmt: skip


def training(run: Run) -> Section:
    """Loss, its parts and validation metrics over the epochs."""
    history, best_epoch = run.history, run.metrics["best_epoch"]
    subtitle = "network alone, without the item–item model" if run.tried else ""

    def plot(name: str, title: str, explanation: str, columns: dict[str, str], label: str) -> Plot:
        lines = {line: history[column] for line, column in columns.items()}
        alt = "; ".join(f"{line} from {v[0]:.3f} to {v[-1]:.3f}" for line, v in lines.items())
        return Plot(f"training_{name}", title, explanation, f"{title} over the epochs: {alt}.",
                    figures.curves(lines, label, best_epoch, subtitle))  # fmt: skip

    has_kl = any(history["kl"])
    if history["loss"] == history["nll"]:
        loss: Plot | Text = Text("The loss that training minimises is −log p(x|z) alone, which is shown below.")
    else:
        explanation = "What training minimises: −log p(x|z) and the other terms, each with its weight."
        loss = plot("loss", "Training loss", explanation, {"loss": "loss"}, "loss")
    rows: list[list[Block]] = [
        [Text(
            f"Epochs: {len(history['epoch'])}, of {run.metrics['seconds_per_epoch']:.1f} s each. The weights that were "
            f"kept are those of epoch {best_epoch}, which has the best {metric_name(DECIDES)} on validation users. "
            f"Training figures cover whole histories, with input dropout {run.settings.training.input_dropout:g}"
            f"{' and a random draw of the latent variable' if has_kl else ''}. Validation figures cover only the seen "
            "part of a history, without randomness. The two cannot be compared, so each has axes of its own."
        )],
        [loss,
         plot("metrics", "Validation metrics", "How well held-out items of validation users are ranked after each "
              "epoch; higher is better.", {metric_name(m): f"val_{m}" for m in METRICS if m != "ndcg@10"},
              "mean over validation users")],
        [plot(f"{prefix}nll", f"{title}: −log p(x|z)", f"How badly the model predicts the items {of}; lower is better.",
              {"−log p(x|z)": f"{prefix}nll"}, "nats per user") for prefix, title, of in (
                  ("", "Training", "that users have"), ("val_", "Validation", "that it sees"))],
    ]  # fmt: skip
    if has_kl:
        rows.append([
            plot(f"{prefix}kl", f"{title}: KL term", f"How far a user's posterior lies from the prior, {how}.",
                 {"KL": f"{prefix}kl"}, "nats per user") for prefix, title, how in (
                     ("", "Training", "at a random draw"), ("val_", "Validation", "at the posterior mean"))
        ])  # fmt: skip
        rows.append(_beta(run, plot))
    if run.tried:
        best = max(run.tried, key=lambda candidate: candidate.ndcg)
        rows.append([Text(
            "After training, a linear item–item model was fitted, and its scores were added to the network's. The "
            f"weight {best.weight:.3g} and the popularity discount {best.discount:g} were the best of "
            f"{len(run.tried)} pairs on validation users: {metric_name(DECIDES)} {run.tried[0].ndcg:.4f} without the "
            f"item–item model, {best.ndcg:.4f} with it. The plots above and the latent space are of the network alone. "
            "All recommendations on this page come from the sum."
        )])  # fmt: skip
    return Section("Training", rows)


def _beta(run: Run, plot: Callable[..., Plot]) -> list[Block]:
    """The KL term's weight: a plot if it changes, a sentence if it does not."""
    values = run.history["beta"]
    unit = "each item of a history" if run.settings.training.beta_scale == "item" else "each user"
    if len(set(values)) == 1:
        return [Text(f"The weight β of the KL term was {values[0]:.3g} (for {unit}) in every epoch.")]
    return [
        plot("beta", "Weight β of the KL term", "By how much the loss counts the KL term.", {"β": "beta"}, "β"),
        Text(f"The weight β of the KL term (for {unit}) went from {values[0]:.3g} to {values[-1]:.3g}; in the best "
             f"epoch it was {values[run.metrics['best_epoch'] - 1]:.3g}. While β is small, the network learns to "
             "predict items; as it grows, the users' posteriors are drawn to the prior."),
    ]  # fmt: skip


def against_baselines(run: Run, seed: int) -> Section:
    """Metrics of all systems with intervals, and the paired differences."""
    estimates = {
        part: {
            name: [significance.estimate(run.values[name][part][m], seed=seed) for m in METRICS] for name in run.systems
        }
        for part in PARTS
    }
    names = [metric_name(m) for m in METRICS]
    users = {part: f"{run.users[part].fold_in.shape[0]:,} {part} users" for part in PARTS}

    def means(part: str) -> Table:
        rows: list[list[str | Interval]] = [
            [m, *(_with_interval(e[i]) for e in estimates[part].values())] for i, m in enumerate(names)
        ]
        return Table(f"{users[part]}: mean and 95% interval", ["", *run.systems], rows)

    gains: list[list[str | Interval]] = [
        [metric_name(m), *(_signed(_gain(run, name, m, seed)) for name in run.systems[1:])] for m in METRICS
    ]
    baselines = "; ".join(f"{baseline.label} {baseline.description}" for baseline in run.baselines.values())
    chosen = " and the weight of the item–item model" if run.tried else ""
    return Section("Comparison with the baselines", [
        [Text(
            "NDCG@k is 1 if the held-out items stand at the top of the list of the first k, and 0 if none is in the "
            "list; a place nearer the top counts more. Recall@k is the share of the held-out items (of k, if there are "
            "more) that is in the list."
        )],
        [Text(
            f"The baselines were fitted to the same training users and ranked the same held-out users: {baselines}. "
            "The intervals come from a bootstrap over users: they tell how far a figure would move with other users of "
            "the same kind, not with another seed of the training."
        )],
        [Plot("metrics", "Test metrics", f"A dot is the mean over {users['test']}, the bar its 95% interval.",
              "Test metrics of each system; the table beside the plot has the figures.",
              figures.intervals(names, estimates["test"], "mean over test users"), (4.0, 3.6)),
         means("test")],
        [means("validation"),
         Table(f"{users['test']}: {OURS} minus the baseline, user by user",
               ["", *(f"minus {name}" for name in run.systems[1:])], gains)],
        [Text(f"Choices such as the best epoch{chosen} were made on the validation users, so validation figures are a "
              "little too good. Nothing was chosen on the test users.")],
    ])  # fmt: skip


def by_history(run: Run, seed: int) -> Section:
    """The deciding metric by the length of the history that the model sees."""
    groups = numbers.by_history_length(run.users["test"].fold_in)
    values = {name: run.values[name]["test"][DECIDES] for name in run.systems}
    estimates = {
        name: [significance.estimate(per_user[g.members], seed=seed) for g in groups]
        for name, per_user in values.items()
    }
    gains = {
        name: [significance.estimate((values[OURS] - values[name])[g.members], seed=seed) for g in groups]
        for name in run.rivals
    }
    return _grouped(
        "By length of history", "history_length", "items in the history", "users", groups, estimates, gains,
        metric_name(DECIDES),
        "Does the model also serve users of whom little is known? The test users stand in groups of about equal size, "
        "by the number of their items that the models see.",
    )  # fmt: skip


def by_popularity(run: Run, seed: int) -> Section:
    """The share of held-out items that is found, by their popularity in training."""
    groups, target = numbers.by_popularity(run.split.train), run.users["test"].target
    counts = {
        name: [numbers.found_and_wanted(run.ranked[name]["test"][:, :FOUND_AT], target, g.members) for g in groups]
        for name in run.systems
    }
    kept = [i for i in range(len(groups)) if counts[OURS][i][1].sum()]  # a group may hold no held-out item
    estimates = {name: [significance.ratio(*counts[name][i], seed=seed) for i in kept] for name in run.systems}

    def gain(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> Estimate:
        return significance.ratio(ours[0] - theirs[0], ours[1], seed=seed)

    gains = {name: [gain(counts[OURS][i], counts[name][i]) for i in kept] for name in run.rivals}
    return _grouped(
        "By popularity of the held-out items", "item_popularity", "training users of the item", "items",
        [groups[i] for i in kept], estimates, gains, f"Found in the top {FOUND_AT}",
        "Does the model find only what everyone has? Shown is the share of the test users' held-out items that is "
        f"among a user's first {FOUND_AT} recommendations. The items stand in groups with about a fifth of all "
        "training interactions each, so the last group has few items, the most popular ones.",
    )  # fmt: skip


def _grouped(
    title: str, name: str, label: str, of: str, groups: Sequence[numbers.Group], estimates: dict[str, list[Estimate]],
    gains: dict[str, list[Estimate]], metric: str, question: str,
) -> Section:  # fmt: skip
    """A section on groups: a plot of all systems, and a table with the paired differences."""
    labels = [g.label for g in groups]
    rows: list[list[str | Interval]] = [
        [g.label, f"{g.members.sum():,}", *(f"{estimates[s][i].mean:.4f}" for s in estimates),
         *(_signed(gains[s][i]) for s in gains)] for i, g in enumerate(groups)
    ]  # fmt: skip
    return Section(title, [
        [Text(question)],
        [Plot(name, metric, f"A row is a group, by {label}. A dot is a system's figure, the bar its 95% interval.",
              f"{metric} by {label}; the table beside the plot has the figures.",
              figures.intervals(labels, estimates, metric), (4.0, 1.2 + 0.5 * len(groups))),
         Table(f"{metric} in numbers", [label, of, *estimates, *(f"{OURS} minus {s}" for s in gains)], rows)],
    ])  # fmt: skip


def catalogue(run: Run) -> Section:
    """Coverage and concentration of the recommendations."""
    items, lists = len(run.split.item_ids), {name: ranked["test"] for name, ranked in run.ranked.items()}
    at20 = {name: numbers.times_recommended(ranked[:, :20], items) for name, ranked in lists.items()}
    covered = {
        name: [numbers.coverage(numbers.times_recommended(ranked[:, :k], items)) for k in COVERAGE_AT]
        for name, ranked in lists.items()
    }
    popular = np.bincount(run.split.train.indices, minlength=items)
    chosen = np.bincount(run.users["test"].target.indices, minlength=items)

    def row(name: str, coverage: Sequence[str], counts: np.ndarray) -> list[str]:
        return [name, *coverage, f"{numbers.gini(counts):.3f}", f"{counts @ popular / counts.sum():,.0f}"]

    rows = [row(name, [f"{share:.1%}" for share in covered[name]], at20[name]) for name in run.systems]
    rows.append(row("held-out items", ["–"] * (len(COVERAGE_AT) - 1) + [f"{numbers.coverage(chosen):.1%}"], chosen))
    return Section("Variety of the recommendations", [
        [Text(
            "Do all users get the same few items? coverage@k is the share of the catalogue that is in the top k of at "
            "least one test user. Gini@20 is 0 if all items are recommended equally often, and near 1 if one item is "
            "all that is recommended. popularity@20 is the number of training users of the average recommended item. "
            "The last row shows the held-out items, all that these users really chose."
        )],
        [Plot("coverage", "Catalogue coverage", "How much of the catalogue the lists of all test users show together.",
              "Coverage over k; the table below has the figures.",
              figures.coverages(covered, COVERAGE_AT)),
         Plot("concentration", "Concentration of the top 20",
              "The share of all recommendations that goes to the most recommended items; a steep curve means little "
              "variety.",
              "Shares of the recommendations; the table below has the Gini coefficients.",
              figures.concentrations({name: numbers.concentration(c) for name, c in at20.items()}))],
        [Table(f"Lists of {len(lists[OURS]):,} test users, {items:,} items",
               ["", *(f"coverage@{k}" for k in COVERAGE_AT), "Gini@20", "popularity@20"], rows)],
    ])  # fmt: skip


def examples(run: Run, wanted: int, history: int = 12, shown: int = 10) -> Section | None:
    """Test users from the worst served to the best, with their history and their recommendations."""
    if not wanted:
        return None
    users, values = run.users["test"], run.values[OURS]["test"][DECIDES]
    order = np.argsort(values, kind="stable")
    chosen = order[np.unique(((np.arange(wanted) + 0.5) / wanted * len(order)).astype(int))]
    lists = run.ranked[OURS]["test"][chosen, :shown]
    reasons = owed_to(run.model, users.fold_in[chosen], lists)
    cards = []
    for number, (user, best, owed) in enumerate(zip(chosen, lists.tolist(), reasons, strict=True), 1):
        seen, target = users.fold_in[user].indices, set(users.target[user].indices.tolist())
        more = f" … and {len(seen) - history:,} more" if len(seen) > history else ""
        cards.append(User(
            f"User {number}: {metric_name(DECIDES)} {values[user]:.3f}",
            "; ".join(map(run.title, seen[:history])) + more,
            f"{len(target.intersection(best))} of {len(target)} held-out items among the first {len(best)}",
            [Recommended(run.title(item), item in target, [run.title(i) for i in why])
             for item, why in zip(best, owed, strict=True)],
        ))  # fmt: skip
    explanation = Text(
        f"Test users at even steps from the lowest {metric_name(DECIDES)} to the highest, so that good and bad cases "
        "are shown alike. Items with a ✓ are held-out items: the user chose them, and the model did not see that. "
        "Below a recommendation stand the two items of the history that it owes most to: leaving one of them out "
        "would lower its log-probability more than leaving out any other item."
    )
    return Section("Example users", [[explanation], [Users(cards)]])


def _gain(run: Run, baseline: str, metric: str, seed: int) -> Estimate:
    """The model minus the baseline on the test users."""
    ours, theirs = (run.values[name]["test"][metric] for name in (OURS, baseline))
    return significance.paired_difference(ours, theirs, seed=seed)


def _with_interval(e: Estimate) -> Interval:
    return Interval(f"{e.mean:.4f}", f"{e.low:.4f}–{e.high:.4f}")


def _signed(e: Estimate) -> Interval:
    return Interval(signed(e.mean), f"{signed(e.low)} to {signed(e.high)}")


def signed(value: float) -> str:
    """With its sign, and a minus as wide as a plus."""
    return f"{value:+.4f}".replace("-", "−")
