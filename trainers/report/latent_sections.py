"""The report's section on the latent space: where users lie, where the prior puts mass, what its components mean."""

import numpy as np

from trainers.report import figures
from trainers.report.page import Block, Plot, Section, Table, Text
from trainers.report.run import Run
from vae_cf_tf.evaluation import latent

ITEMS_SHOWN = 6
POINTS_SHOWN = 2_000
SIZE = (4.0, 3.9)


def latent_space(run: Run, described: int, seed: int) -> Section | None:
    """The test users' posteriors against the prior; None for a model that has no prior."""
    space = latent.examine(run.network, run.users["test"].fold_in, run.settings.evaluation.eval_batch_size, seed)
    if space is None:
        return None
    rng = np.random.default_rng(seed)
    plane = latent.principal_plane(space.users.mean)
    draws = space.users.draw(rng)
    shown = np.sort(rng.permutation(len(draws))[:POINTS_SHOWN])
    first, second = (f"direction {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(plane.shares))
    labels = (first, second)
    shares = points = None
    largest: list[int] = []
    circles = "A dot is the posterior mean of a test user, without the random part of a draw."
    if space.components:
        shares = latent.responsibilities(draws, space.components).mean(axis=0)
        largest = np.argsort(-shares, kind="stable")[:described].tolist()
        points = plane.project(space.components.mean)
        circles += f" A circle is one of the prior's {len(shares):,} components, larger if it stands for more users."
        circles += f" The {len(largest)} largest have their number in the table below." if largest else ""
    variable = run.network.prior_is_of
    dimensions = space.users.mean.shape[1]
    rows: list[list[Block]] = [
        [Text(
            f"The network describes a user by {dimensions:,} numbers, the {variable}. It does not know them exactly: "
            "each user has a distribution of them, the posterior, and the prior is the distribution that it expects of "
            "users in general. The plots show the two directions in which the test users differ most. "
            f"{latent.active_dimensions(space.users.mean):,} of the {dimensions:,} dimensions are active: their "
            "posterior means vary over users by more than 0.01."
        )],
        [Plot("latent_prior", "Users and prior",
              "A dot is a draw from a test user's posterior, a cross a draw from the prior. Training pulls the two "
              "clouds together. Crosses without dots nearby: the prior puts mass where no user is.",
              f"Draws of {len(shown):,} test users and as many draws of the prior.",
              figures.clouds(plane.project(space.prior)[shown], plane.project(draws)[shown], labels), SIZE),
         Plot("latent_components", "Users" + (" and components of the prior" if space.components else ""), circles,
              f"Posterior means of {len(shown):,} test users in the same plane.",
              figures.means_and_components(plane.project(space.users.mean)[shown], points, shares, largest, labels),
              SIZE)],
    ]  # fmt: skip
    if space.components and shares is not None and largest:
        rows += _components(run, space.components, shares, largest)
    return Section("Latent space", rows)


def _components(run: Run, components: latent.Normals, shares: np.ndarray, largest: list[int]) -> list[list[Block]]:
    """What the components that stand for most users mean."""
    expected = latent.mean_decoded(run.network, components.mean, shares)
    chances = latent.decoded(run.network, components.mean[largest])
    scores = chances * np.log(np.maximum(chances, 1e-30) / np.maximum(expected, 1e-30))  # [components, items]
    inputs = run.network.prior.pseudo_inputs_of(np.asarray(largest))
    text = (
        f"Effective number of components: {latent.effective_number(shares):,.0f} of {len(shares):,} (the exponential "
        "of the entropy of their shares of the users). Recommends: items that the network gives a higher probability "
        "for this component than for the average user, ordered by p·log(p/average p). "
    )
    head = ["component", "recommends"]
    if inputs is not None and inputs.learned:
        head.insert(1, "largest weights of its pseudo-input")
        text += (
            "A component is the posterior of a pseudo-input, a history that was learned with a weight from 0 to 1 for "
            "each item; of equal weights, the items come first that the component recommends. If the two columns have "
            "little in common, the pseudo-input is a code that only the network can read, not a typical history."
        )
    elif inputs is not None:
        head = ["component", "this user's most characteristic items", "recommends beside these"]
        text += (
            "A component is the posterior of one training user. Characteristic: the items of this user's history that "
            "come first by the same measure."
        )
    rows = []
    for i, k in enumerate(largest):
        score, row = scores[i], [f"{k}: {shares[k]:.1%} of users"]
        if inputs is not None:
            weights = inputs.weights[i]
            order = [j for j in np.lexsort((-score, -weights.round(2)))[:ITEMS_SHOWN] if weights[j]]
            row.append("; ".join(run.title(j) + (f" ({weights[j]:.2f})" if inputs.learned else "") for j in order))
            score = score if inputs.learned else np.where(weights, -np.inf, score)
        rows.append([*row, "; ".join(map(run.title, np.argsort(-score, kind="stable")[:ITEMS_SHOWN]))])
    caption = f"The {len(largest)} components that stand for most test users"
    return [[Text(text)], [Table(caption, head, rows, words=True)]]
