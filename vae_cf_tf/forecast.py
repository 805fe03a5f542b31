"""What a job will take, before it starts: memory, disk, time and traffic from the sizes of the data and the model.

The formulas are those of docs/scale.md, which shows them beside measurements. Nothing is built and nothing is imported
that needs TensorFlow. Sizes are in bytes and times in seconds.

Symbols: M items, U training users, E events, B users in a step, H hidden units, Z latent dimensions, K pseudo-inputs,
L hidden blocks, g = 2 for gated blocks and 1 for tanh, R replicas.
"""

import dataclasses
from typing import NamedTuple

from vae_cf_tf.registries import LATENT, PRIORS
from vae_cf_tf.settings import ModelSettings, Settings

FLOAT = 4
CSR = 8  # an interaction in memory: a column and a value


@dataclasses.dataclass(frozen=True)
class Machine:
    """Rates of a machine; docs/scale.md says how the defaults were found, on 2 cores with AVX-512.

    Args:
      products: floating-point operations a second of dense products.
      adam: bytes a second of Adam's update of whole variables, 28 for each number.
      bags: bytes a second of sums over histories, in training.
      scores: bytes a second of all that is done with a step's scores, beside the products.
      rows: bytes a second of updates of single rows.
      reading: bytes a second of a request's reading of the weights.
      request_bags: bytes a second of sums over histories, in a request.
      ranking: bytes a second of a request's scores, which are masked and ranked.
      preparing: events a second of trainers.prepare with DuckDB.
      network: bytes a second between two machines.
      overhead: seconds of a step that no formula has.
      base: memory of a process that has imported TensorFlow and this package.
    """

    products: float = 465e9
    adam: float = 35e9
    bags: float = 24e9
    scores: float = 1.5e9
    rows: float = 1.55e9
    reading: float = 35e9
    request_bags: float = 19.8e9
    ranking: float = 2.9e9
    preparing: float = 1.95e6
    network: float = 1.25e9
    overhead: float = 0.0088
    base: float = 720 * 2**20


DEFAULT_MACHINE = Machine()


class Parameters(NamedTuple):
    """Numbers in a model."""

    trainable: int
    by_rows: int  # those of `trainable` of which a step updates some rows only
    frozen: int  # means and variances of users, and copies of networks as they were an epoch ago
    serving: int  # what a prediction reads


def parameters(settings: ModelSettings, items: int, outputs: int = 1) -> Parameters:
    """Counts the parameters of a model; `outputs`: numbers of the likelihood for each item.

    A linear layer from i to o units has i·o + o. A block has g of these, and 2·o more where LayerNorm follows. The
    heads of a Gaussian are two layers to Z. So

    - the encoder: M → H → … → H (L blocks), and heads;
    - the lower encoder of the hierarchy: either a second one of M + Z (for L > 1, M and Z → H each, 2H → … → H), and
      heads; or heads of H + Z;
    - the prior of the lower variable: Z → H (→ … → H, L blocks, where the lower encoder reads items), and heads;
    - the decoder: Z (or Z and Z) → H … → outputs·M;
    - the prior: K·M or K·H learned, or 2·K·Z that do not learn;
    - with prior_own, a frozen copy of the network that gives the lowest variable's posterior.

    An autoencoder without a latent variable ends its encoder in a block of Z units in place of the heads.
    """
    s = settings.for_catalogue(items)
    hidden, latent, dense = s.hidden_dim, s.latent_dim, s.encoder_skips == "dense"
    gates = _gates(s)
    has_variable, two = s.has_latent_variable, LATENT.has(s.latent, "two latent variables")

    def linear(inputs: int, units: int) -> int:
        return inputs * units + units

    def stack(inputs: int, units: list[int], norms: bool = False) -> int:
        widths = [inputs, *units]
        return sum(gates * linear(i, o) + 2 * o * norms for i, o in zip(widths, units, strict=False))

    def heads(inputs: int) -> int:
        return 2 * linear(inputs, latent)

    first = gates * items * hidden  # kernel of the first block
    if has_variable:
        body = stack(items, [hidden] * s.layers, dense)
        encoder = body + heads(hidden)
    else:
        body = encoder = stack(items, [hidden] * (s.layers - 1) + [latent], dense)
        first = gates * items * (hidden if s.layers > 1 else latent)
    decoder_layers = s.decoder_layers if s.decoder_layers >= 0 else s.layers - (not has_variable)
    item_kernels, lower, lower_prior = first, 0, 0
    if two:
        reads_items = s.lower_encoder == "items"
        if not reads_items:
            lower = heads(hidden + latent)
        elif s.layers == 1:
            lower = stack(items + latent, [hidden], dense) + heads(hidden)
        else:
            joint = stack(2 * hidden, [hidden] * (s.layers - 1), dense)
            lower = stack(items, [hidden], dense) + stack(latent, [hidden], dense) + joint + heads(hidden)
        item_kernels += first * reads_items
        lower_prior = stack(latent, [hidden] * (s.layers if reads_items else 1)) + heads(hidden)
        parts = 2 * stack(latent, [hidden]) if decoder_layers > 1 else 0
        width = 2 * hidden if decoder_layers > 1 else 2 * latent
        inner = parts + stack(width, [hidden] * (decoder_layers - (decoder_layers > 1)))
        last = hidden if decoder_layers else 2 * latent
    else:
        inner = stack(latent, [hidden] * decoder_layers)
        last = hidden if decoder_layers else latent
    output = linear(last, outputs * items)
    learned = kept = copies = 0
    if has_variable:
        learned = s.pseudo_inputs * items * _learns_items(s)
        learned += s.pseudo_inputs * hidden * PRIORS.has(s.prior, "learns rows of hidden units")
        kept = 2 * s.pseudo_inputs * latent * PRIORS.has(s.prior, "keeps posteriors of users")
        if s.prior_own:
            copies = (lower if reads_items else lower + body) if two else encoder
    trainable = encoder + lower + lower_prior + inner + output + learned
    by_rows = item_kernels + output if s.softmax_samples else 0
    unread = linear(hidden, latent) * has_variable  # log-variances
    if two:
        unread += linear(hidden if s.lower_encoder == "items" else hidden + latent, latent) + lower_prior
    return Parameters(
        trainable,
        by_rows,
        kept + copies + 1,  # β
        trainable - learned - unread,
    )


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a training takes. Memory is of one process, in bytes; see the formulas at each field."""

    parameters: Parameters
    base: float  # a process that has imported everything
    reading: float  # 45·E, while a log is read into memory, before the rest is imported
    data: float  # CSR·E + 4·(U + 1): training users
    model: float  # 4·(trainable + frozen)
    moments: float  # 8·trainable: Adam's m and v; 4·trainable more where weights are averaged
    gradients: float  # 4·trainable, but of layers by rows the rows of a step only
    step: float  # activations: see `step_memory`
    ease: float  # of EASE, the baseline: a matrix of items, see `item_matrix`
    fitting: float  # of the item–item model while it is made: see `_item_item`
    item_item: float  # of the item–item model when it is done
    evaluation: float  # scores of the users that are ranked at once
    checkpoint: float  # on disk: 4·(3·trainable + frozen), one more 4·trainable with averages
    export: float  # on disk: 4·serving, and the item–item model
    prepared: float  # on disk: 2.5·E, a prepared data set
    prepare_seconds: float
    step_seconds: float
    epoch_seconds: float
    traffic: float  # bytes a step that each replica sends: 2·(R − 1)/R of whole gradients, (R − 1) times those of rows

    @property
    def training_peak(self) -> float:
        """Resident memory at most while steps are made."""
        return self.base + self.data + self.model + self.moments + self.gradients + self.step

    @property
    def job_peak(self) -> float:
        """The same for a whole job of trainers.main: reading, baselines, training, the item–item model, evaluation, and
        the export, which loads what it has written beside the model."""
        trained = self.base + self.data + self.model + self.moments
        kept = trained + max(self.gradients + self.step, KEPT * (self.model + self.moments))
        return max(
            self.reading,
            self.base + self.data + self.ease,
            kept + self.item_item + self.fitting,
            trained + self.item_item + self.evaluation,
            trained + self.item_item + 2 * FLOAT * self.parameters.serving,
        )


KEPT = 0.5
"""What TensorFlow's allocator holds beside the variables when a training is done, as a share of them, unless a step's
tensors are more. It gives nothing back to the system, so NumPy's arrays come on top."""
SCORE_COPIES, PSEUDO_COPIES = 4.0, 4.0
"""Tensors of the size of a step's scores, and of the pseudo-inputs, that are alive at once; see docs/scale.md."""
PREPARE_START = 0.8  # seconds of trainers.prepare without any event
STEP_BASE = 60 * 2**20  # graphs, threads' arenas and the input pipeline


def forecast(
    settings: Settings,
    users: int,
    items: int,
    events: int,
    replicas: int = 1,
    machine: Machine = DEFAULT_MACHINE,
    outputs: int = 1,
) -> Forecast:
    """What a training of these sizes will take.

    Args:
      settings: of the run.
      users: in training.
      items: of the catalogue.
      events: of the training users.
      replicas: that share a step's users and add up their gradients.
      machine: of each replica.
      outputs: numbers of the likelihood for each item.

    Examples:
      >>> size = forecast(Settings(), users=10**8, items=10**6, events=10**9)
      >>> f"{size.parameters.trainable:.2g} parameters, {size.training_peak / 2**30:.0f} GiB"
      '1.6e+09 parameters, 37 GiB'
    """
    settings = dataclasses.replace(settings, model=settings.model.for_catalogue(items))
    count = parameters(settings.model, items, outputs)
    copies = 2 + (settings.training.average_weights > 0)
    per_user = events / max(users, 1)
    batch = min(settings.training.batch_size, users) / replicas
    item_item, fitting = _item_item(settings, items)
    ease_items = items if items <= settings.evaluation.ease_max_items and settings.evaluation.ease_l2_values else 0
    scores = min(settings.training.batch_size, max(1, 50_000_000 // items)) * items * FLOAT
    dense = count.trainable - count.by_rows
    row_bytes = FLOAT * sum(_rows_of_step(settings, items, batch, per_user)) * settings.model.hidden_dim
    traffic = 2 * (replicas - 1) / replicas * FLOAT * dense + (replicas - 1) * row_bytes
    seconds = step_seconds(settings, items, batch, per_user, count, machine, replicas) + traffic / machine.network
    steps = -(-users // settings.training.batch_size) * (1 + settings.training.encoder_passes)
    return Forecast(
        count,
        machine.base,
        45.0 * events,
        CSR * events + FLOAT * (users + 1),
        FLOAT * (count.trainable + count.frozen),
        copies * FLOAT * count.trainable,
        FLOAT * dense + replicas * row_bytes,
        step_memory(settings, items, batch, per_user, outputs),
        item_matrix(ease_items),
        fitting,
        item_item,
        3 * scores,
        FLOAT * ((1 + copies) * count.trainable + count.frozen),
        FLOAT * count.serving + item_item,
        2.5 * events,
        PREPARE_START + events / machine.preparing,
        seconds,
        steps * seconds,
        traffic,
    )


def item_matrix(items: int) -> float:
    """A dense matrix from items to items as `linear.gram` inverts it: 8·n² up to 8,000 items, 4·n² above, in place."""
    return (8 if items <= 8_000 else 4) * float(items) ** 2


def step_memory(settings: Settings, items: int, batch: float, per_user: float, outputs: int = 1) -> float:
    """Activations of a step: SCORE_COPIES·4·B·M of the decoder's output (of a sampled softmax its candidates only),
    PSEUDO_COPIES·4·K·M of learned pseudo-inputs, and hidden blocks."""
    s, scored = settings.model, items * outputs
    if s.softmax_samples:
        scored = min(items, int(s.softmax_samples + batch * per_user))
    pseudo = s.pseudo_inputs * items * _learns_items(s)
    blocks = 10 * (s.layers + 1) * s.hidden_dim * (batch + (s.pseudo_inputs if pseudo else 0))
    return STEP_BASE + FLOAT * (SCORE_COPIES * batch * scored + PSEUDO_COPIES * pseudo + blocks)


def step_seconds(
    settings: Settings,
    items: int,
    batch: float,
    per_user: float,
    count: Parameters,
    machine: Machine,
    replicas: int = 1,
) -> float:
    """A training step of `batch` users on each replica, without the time to send gradients: the sum of its parts, each
    at its rate:

    - products: 6·B for each parameter behind the first layer (forward and two gradients), and 6·K for each of the first
      layer where K pseudo-inputs of M items pass through it;
    - Adam: 28 bytes for each parameter (it and two moments are read and written, and a gradient read);
    - sums over histories: 8·B·E/U·g·H bytes, for each of the networks that read items;
    - scores: 4·B·M bytes, and 8·K·M for pseudo-inputs of items;
    - by rows, for `softmax_samples`: the candidates in place of M, and 4·H bytes for each row that is updated,
      whichever replica used it.
    """
    s = settings.model
    has_rows, networks = _learns_items(s), _networks(s)
    first = _gates(s) * items * s.hidden_dim * networks
    pseudo = s.pseudo_inputs * items * has_rows
    if s.softmax_samples:
        seen, scored = _rows_of_step(settings, items, batch, per_user)
        behind, whole = count.trainable - count.by_rows + scored * s.hidden_dim, count.trainable - count.by_rows
        row_bytes = replicas * FLOAT * (seen + scored) * s.hidden_dim
    else:
        scored, behind, whole, row_bytes = items, count.trainable - first - pseudo, count.trainable, 0
    operations = 6 * batch * behind + 6 * s.pseudo_inputs * _gates(s) * items * s.hidden_dim * has_rows
    bags = 2 * FLOAT * batch * per_user * _gates(s) * s.hidden_dim * networks
    return (
        operations / machine.products
        + 28 * whole / machine.adam
        + bags / machine.bags
        + FLOAT * (batch * scored + 2 * pseudo) / machine.scores
        + row_bytes / machine.rows
        + machine.overhead
    )


def request_seconds(
    settings: ModelSettings, items: int, batch: int, length: float, machine: Machine = DEFAULT_MACHINE
) -> float:
    """The answer to a request of `batch` histories of `length` items by the SavedModel, on all cores:

    - 4 bytes for each served parameter behind the first layer, at the rate of reading;
    - products: 2·batch for each of these, in a request of several histories;
    - 4·batch·M bytes of scores, masked and ranked;
    - 4·batch·length·g·H bytes of sums over histories, for each of the networks that read items.
    """
    gates, networks = _gates(settings), _networks(settings)
    behind = parameters(settings, items).serving - gates * items * settings.hidden_dim * networks
    return (
        FLOAT * behind / machine.reading
        + (2 * batch * behind / machine.products if batch > 1 else 0)
        + FLOAT * batch * items / machine.ranking
        + FLOAT * batch * length * gates * settings.hidden_dim * networks / machine.request_bags
    )


def distinct_items(occurrences: float, items: int) -> int:
    """Distinct items among n occurrences: n/(1 + 1.79·(n/M)^.58). The two constants are those of `data.synthetic`'s
    popularity, at 100,000 and 1,000,000 items."""
    return int(min(items, occurrences / (1 + 1.79 * (occurrences / items) ** 0.58)))


def _gates(settings: ModelSettings) -> int:
    return 2 if settings.block == "gated" else 1


def _networks(settings: ModelSettings) -> int:
    """Networks that read items."""
    return 1 + (settings.lower_encoder == "items" and LATENT.has(settings.latent, "two latent variables"))


def _learns_items(settings: ModelSettings) -> bool:
    return settings.has_latent_variable and PRIORS.has(settings.prior, "learns rows of items")


def _rows_of_step(settings: Settings, items: int, batch: float, per_user: float) -> tuple[int, int]:
    """Rows of the first layer's and of the last layer's kernel that a replica's share of a step of a sampled softmax
    uses; (0, 0) for a whole softmax."""
    if not settings.model.softmax_samples:
        return 0, 0
    seen = distinct_items(batch * per_user, items)
    return seen, min(items, seen + settings.model.softmax_samples)


def _item_item(settings: Settings, items: int) -> tuple[float, float]:
    """Bytes of the finished item–item model, and of what is beside it while it is made; (0, 0) where there is none.

    EASE is half of `item_matrix`. Item-kNN has 8 bytes for each coefficient that is stored, of all M² at most. Where
    there are both, the better one of those that are done is held as well.
    """
    if not settings.item_item.candidates:
        return 0.0, 0.0
    whole, room = FLOAT * float(items) ** 2, settings.item_item.item_path_mb * 1e6
    finished, of_knn = (whole, 2 * whole) if whole <= room else (room, room / 2)
    of_ease = item_matrix(min(items, settings.item_item.item_path_max_items)) / 2
    return finished, max(of_ease, of_knn) + (finished if len(settings.item_item.candidates) > 1 else 0)
