"""The report's section on the latent space: where users lie, what the prior expects, what its components stand for."""

import numpy as np

from trainers.report import figures, latent, page
from trainers.report.run import Run

ITEMS_SHOWN = 6
POINTS_SHOWN = 2_000


def latent_space(run: Run, described: int, seed: int) -> tuple[page.Section, dict[str, bytes]] | None:
    """The aggregate posterior of the test users against the prior; None for a model that has no prior."""
    found = latent.examine(run.model, run.users["test"].fold_in, run.config.eval_batch_size, seed)
    if found is None:
        return None
    rng = np.random.default_rng(seed)
    plane = latent.principal_plane(found.users.mean)
    draws = found.users.draw(rng)
    some = np.sort(rng.permutation(len(draws))[:POINTS_SHOWN])
    labels = tuple(f"direction {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(plane.shares))
    body, files, shares, top = [], {}, None, []
    if found.components:
        shares = latent.responsibilities(draws, found.components.normals).mean(axis=0)
        top = np.argsort(-shares, kind="stable")[:described].tolist()
    places = None if shares is None else plane.project(found.components.normals.mean)
    drawn, files = page.plots([
        page.Plot(
            "latent_prior", "Users against the prior",
            f"Draws of {len(some):,} test users' posteriors over as many draws of the prior, in the plane of the "
            "users' first two principal directions.",
            figures.clouds(plane.project(found.prior)[some], plane.project(draws)[some], labels), (4.8, 4.4),
        ),
        page.Plot(
            "latent_components", "Posterior means" + (" and the prior's components" if top else ""),
            "Posterior means of the test users in the same plane" + (
                f", and the {len(shares):,} components of the prior, the larger the more users they answer for; the "
                f"{len(top)} largest are numbered." if top else "."),
            figures.means_and_components(plane.project(found.users.mean)[some], places, shares, top, labels),
            (4.8, 4.4),
        ),
    ])  # fmt: skip
    which = "upper latent variable z2" if run.config.latent == "hierarchical" else "latent variable z"
    dimensions = found.users.mean.shape[1]
    body = [
        page.paragraph(
            f"The {which} of {len(draws):,} test users, projected onto the two directions in which their posterior "
            "means differ most. Left: a draw for each user and as many draws of the prior, which the KL term pulls "
            "together; where crosses lie without dots the prior expects users who do not come. "
            f"{latent.active_dimensions(found.users.mean):,} of {dimensions:,} dimensions are active (their mean "
            "varies over users by more than .01)."
        ),
        drawn,
    ]
    if top:
        body += _components(run, found.components, shares, top)
    return page.Section("Latent space", body), files


def _components(run: Run, components: latent.Components, shares: np.ndarray, top: list[int]) -> list[page.Html]:
    """What the components that answer for most users stand for."""
    effective = np.exp(-np.sum(shares * np.log(np.maximum(shares, 1e-300))))
    means, inputs = components.normals.mean, components.pseudo_inputs
    blocks = [slice(start, start + 100) for start in range(0, len(means), 100)]  # K × items is too much at once
    expected = np.sum([shares[block] @ latent.decoded(run.model, means[block]) for block in blocks], axis=0)
    usual = None if inputs is None else inputs.mean(axis=0)
    rows = []
    for k, chance in zip(top, latent.decoded(run.model, means[top]), strict=True):
        lift = np.log(np.maximum(chance, 1e-30) / np.maximum(expected, 1e-30))
        row = [f"{k} ({shares[k]:.1%})"]
        if inputs is not None:
            heaviest = np.lexsort((usual - inputs[k], -inputs[k]))[:ITEMS_SHOWN]  # of equal ones, the less usual first
            row.append("; ".join(f"{run.title(i)} ({inputs[k, i]:.2f})" for i in heaviest))
        rows.append([*row, "; ".join(map(run.title, np.argsort(-chance * lift, kind="stable")[:ITEMS_SHOWN]))])
    said = (
        f"Of {len(shares):,} components of the prior, as many are in use as {effective:,.0f} equal ones would be (the "
        "exponential of the entropy of their shares of the users). Recommends: the items that the decoder gives to the "
        "component's mean more than to the mean user, by p·log(p/p̄)."
    )
    if inputs is not None:
        said += (
            " A component is the posterior of one pseudo-input, a learned history or a training user's. Weighs most: "
            "the items with the largest weights (from 0 to 1) in it, of equal ones the less usual first. Where the two "
            "columns have little to do with each other, the "
            "pseudo-input is a code that only the encoder reads, not a typical history."
        )
    head = ["component (users)", *(["weighs most"] if inputs is not None else []), "recommends"]
    caption = f"The {len(top)} components that answer for most test users"
    return [page.paragraph(said), page.table(caption, head, rows, text=True)]
