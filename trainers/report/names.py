"""Names that the report's files share: systems and metrics."""

from vae_cf_tf.evaluation.metrics import MAIN, SHOWN

OURS = "this model"
METRICS, DECIDES = SHOWN, MAIN


def metric_name(metric: str) -> str:
    """A metric as the papers write it: NDCG@100."""
    return metric.replace("ndcg", "NDCG").replace("recall", "Recall")
