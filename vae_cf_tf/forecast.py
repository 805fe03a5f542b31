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
    """Rates of a machine. The defaults were measured on 2 cores with AVX-512 by `trainers.benchmark`.

    Args:
      flops: floating-point operations a second of a float32 product.
      bandwidth: bytes a second through memory.
      network: bytes a second between two machines.
      base: memory of a process that has imported TensorFlow and this package.
      overhead: of a step or a request, that no formula has.
    """

    flops: float = 400e9
    bandwidth: float = 15e9
    network: float = 1.25e9
    base: float = 720 * 2**20
    overhead: float = 0.010


DEFAULT_MACHINE = Machine()


class Parameters(NamedTuple):
    """Numbers in a model."""

    trainable: int
    by_rows: int  # those of `trainable` of which a step updates some rows only
    frozen: int  # means and variances of users, and copies of networks as they were an epoch ago
    serving: int  # what a prediction reads


def parameters(settings: ModelSettings, items: int, outputs: int = 1) -> Parameters:
    """Counts the parameters of a model; `outputs`: numbers of the likelihood for each item.

    A linear layer from i to o units has i·o + o. A block has g of these, and 2·o more where LayerNorm follows. The heads
    of a Gaussian are two layers to Z. So

    - the encoder: M → H → … → H (L blocks), and heads;
    - the lower encoder of the hierarchy: either a second one of M + Z (for L > 1, M and Z → H each, 2H → … → H), and
      heads; or heads of H + Z;
    - the prior of the lower variable: Z → H (→ … → H, L blocks, where the lower encoder reads items), and heads;
    - the decoder: Z (or Z and Z) → H … → outputs·M;
    - the prior: K·M or K·H learned, or 2·K·Z that do not learn;
    - with prior_own, a frozen copy of the network that gives the lowest variable's posterior.

    An autoencoder without a latent variable ends its encoder in a block of Z units in place of the heads.
    """
    s = settings
    hidden, latent, dense = s.hidden_dim, s.latent_dim, s.encoder_skips == "dense"
    gates = 2 if s.block == "gated" else 1
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
        learned = s.pseudo_inputs * items * PRIORS.has(s.prior, "learns rows of items")
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
    data: float  # CSR·E + 4·(U + 1): training users; a second time while they are read
    model: float  # 4·(trainable + frozen)
    moments: float  # 8·trainable: Adam's m and v
    gradients: float  # 4·trainable, but of layers by rows the rows of a step only
    step: float  # activations: see `step_memory`
    ease: float  # of EASE and of the item–item model while it is made: a matrix of items, see `item_matrix`
    item_item: float  # of the item–item model when it is done
    evaluation: float  # scores of the users that are ranked at once
    checkpoint: float  # on disk: 4·(3·trainable + frozen); best.npz: 4·(trainable + frozen)
    export: float  # on disk: 4·serving, and the item–item model
    step_seconds: float
    epoch_seconds: float
    traffic: float  # bytes a step that each replica sends: 2·(R − 1)/R·gradients

    @property
    def training_peak(self) -> float:
        """Resident memory at most while steps are made."""
        return self.base + self.data + self.model + self.moments + self.gradients + self.step

    @property
    def job_peak(self) -> float:
        """The same for a whole job of trainers.main: baselines, training, the item–item model, evaluation."""
        trained = self.base + self.data + self.model
        return max(
            self.base + self.data + self.ease,
            self.training_peak,
            trained + self.moments + self.ease + self.item_item,
            trained + self.moments + self.item_item + self.evaluation,
        )


SCORE_COPIES, PSEUDO_COPIES, BAG_COPIES = 4.0, 4.0, 1.0
"""Tensors of the size of a step's scores, of the pseudo-inputs, and of the bags' rows that are alive at once; fitted to
measured peaks, see docs/scale.md."""
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
      >>> round(size.model / 1e9), round(size.training_peak / 1e9) > 16
      (20, True)
    """
    count = parameters(settings.model, items, outputs)
    per_user = events / max(users, 1)
    batch = min(settings.training.batch_size, users) / replicas
    rows = _rows_of_step(settings, items, batch, per_user)
    item_item, fitted = _item_item(settings, items)
    ease_items = items if items <= settings.evaluation.ease_max_items and settings.evaluation.ease_l2_values else 0
    scores = min(settings.training.batch_size, max(1, 50_000_000 // items)) * items * FLOAT
    dense = count.trainable - count.by_rows
    gradients = FLOAT * (dense + rows * _width(settings.model))
    seconds = step_seconds(settings, items, batch, per_user, count, machine)
    traffic = 2 * (replicas - 1) / replicas * gradients
    seconds += traffic / machine.network
    steps = -(-users // settings.training.batch_size) * (1 + settings.training.encoder_passes)
    return Forecast(
        count,
        machine.base,
        CSR * events + FLOAT * (users + 1),
        FLOAT * (count.trainable + count.frozen),
        2 * FLOAT * count.trainable,
        gradients,
        step_memory(settings, items, batch, per_user, outputs),
        max(item_matrix(ease_items), item_matrix(fitted)),
        item_item,
        3 * scores,
        FLOAT * (3 * count.trainable + count.frozen),
        FLOAT * count.serving + item_item,
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
    s = settings.model
    scored = items * outputs
    if s.softmax_samples:
        scored = min(items, int(s.softmax_samples + batch * per_user))
    pseudo = s.pseudo_inputs * items if PRIORS.has(s.prior, "learns rows of items") and s.has_latent_variable else 0
    blocks = 10 * (s.layers + 1) * s.hidden_dim * (batch + (s.pseudo_inputs if pseudo else 0))
    return STEP_BASE + FLOAT * (SCORE_COPIES * batch * scored + PSEUDO_COPIES * pseudo + blocks)


def step_seconds(
    settings: Settings, items: int, batch: float, per_user: float, count: Parameters, machine: Machine
) -> float:
    """A training step: its products at the machine's rate, and its memory traffic at the bandwidth.

    Products: 2·B·(parameters behind the first layer), 3 times (forward and two gradients); K rows through the whole
    encoder, 3 times, for learned pseudo-inputs. Traffic: 28 bytes for each trainable parameter (Adam reads and writes
    it and two moments, and reads a gradient), 8·E/U·B·g·H for the sums over histories, and 5 passes over the scores.
    """
    s = settings.model
    gates = 2 if s.block == "gated" else 1
    networks = 1 + (s.lower_encoder == "items" and LATENT.has(s.latent, "two latent variables"))
    first = gates * items * s.hidden_dim * networks
    learned = s.pseudo_inputs * items if PRIORS.has(s.prior, "learns rows of items") and s.has_latent_variable else 0
    rows = _rows_of_step(settings, items, batch, per_user)
    behind = count.trainable - first - learned
    updated: float = count.trainable
    scored: float = items
    if s.softmax_samples:
        scored = min(items, s.softmax_samples + batch * per_user)
        behind = count.trainable - count.by_rows + int(scored) * s.hidden_dim
        updated = count.trainable - count.by_rows + rows * _width(s)
    products = 6 * batch * behind + (6 * s.pseudo_inputs * gates * items * s.hidden_dim if learned else 0)
    bags = 2 * FLOAT * batch * per_user * gates * s.hidden_dim * networks
    traffic = 28 * updated + bags + 5 * FLOAT * batch * scored
    return products / machine.flops + traffic / machine.bandwidth + machine.overhead


def _width(settings: ModelSettings) -> int:
    return settings.hidden_dim


def _rows_of_step(settings: Settings, items: int, batch: float, per_user: float) -> int:
    """Rows of item kernels that a step updates, in the first layer and in the last."""
    if not settings.model.softmax_samples:
        return 0
    seen = min(items, batch * per_user)
    return int(seen + min(items, seen + settings.model.softmax_samples))


def _item_item(settings: Settings, items: int) -> tuple[float, int]:
    """Bytes of the finished item–item model, and items of the matrix that it is made of; (0, 0) where there is none."""
    if not settings.item_item.candidates:
        return 0.0, 0
    room = settings.item_item.item_path_mb * 1e6
    return min(FLOAT * float(items) ** 2, room), min(items, settings.item_item.item_path_max_items)
