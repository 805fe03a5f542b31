"""Names that the report's files share: systems, metrics, models."""

from vae_cf_tf.config import Config

OURS = "this model"
METRICS = ("ndcg@100", "ndcg@10", "recall@20", "recall@50")
DECIDES = METRICS[0]
"""The metric by which the best epoch and the best baseline are chosen, on validation users."""

_MODELS = {
    ("none", "standard"): "Multi-DAE",
    ("flat", "standard"): "Multi-VAE",
    ("flat", "vamp"): "Vamp",
    ("hierarchical", "standard"): "Hierarchical VAE",
    ("hierarchical", "vamp"): "H+Vamp",
    ("hierarchical", "user_vamp"): "H+Vamp over users",
}


def metric_name(metric: str) -> str:
    """A metric as the papers write it: NDCG@100."""
    return metric.replace("ndcg", "NDCG").replace("recall", "Recall")


def model_name(config: Config) -> str:
    """The model as the papers call it."""
    name = _MODELS.get((config.latent, config.prior), f"{config.latent} {config.prior}")
    return f"{name} (Gated)" if config.block == "gated" else name
