"""Every family of parts. A new part has its own file and one line here, or registers itself from outside."""

from vae_cf_tf.registry import Registry

LATENT = Registry(
    "latent structure",
    {
        "none": "vae_cf_tf.models.denoising:DAE",
        "flat": "vae_cf_tf.models.flat:VAE",
        "hierarchical": "vae_cf_tf.models.hierarchical:HierarchicalVAE",
    },
    traits={
        "flat": {"latent variable"},
        "hierarchical": {"latent variable", "two latent variables", "sampled KL only"},
    },
    default="hierarchical",
)
PRIORS = Registry(
    "prior",
    {
        "standard": "vae_cf_tf.models.priors.standard:StandardNormal",
        "vamp": "vae_cf_tf.models.priors.vamp:VampPrior",
        "hidden_vamp": "vae_cf_tf.models.priors.hidden_vamp:HiddenVampPrior",
        "user_vamp": "vae_cf_tf.models.priors.user_vamp:UserVampPrior",
        "batch_vamp": "vae_cf_tf.models.priors.batch_vamp:BatchVampPrior",
    },
    traits={
        "standard": {"closed-form KL"},
        "vamp": {"learns rows of items"},
        "hidden_vamp": {"learns rows of hidden units"},
        "user_vamp": {"keeps posteriors of users"},
        "batch_vamp": {"keeps posteriors of users"},
    },
    default="user_vamp",
)
LIKELIHOODS = Registry(
    "likelihood",
    {
        "multinomial": "vae_cf_tf.models.likelihoods.multinomial:Multinomial",
        "bernoulli": "vae_cf_tf.models.likelihoods.bernoulli:Bernoulli",
        "gaussian": "vae_cf_tf.models.likelihoods.gaussian:Gaussian",
    },
    traits={"multinomial": {"sampled", "weights"}},
)
ITEM_ITEM = Registry(
    "item–item model",
    {
        "knn": "vae_cf_tf.linear.item_knn:ItemNeighbours",
        "linear": "vae_cf_tf.linear.item_item:NormalizedEase",
    },
)
BASELINES = Registry(
    "baseline",
    {
        "popularity": "vae_cf_tf.linear.popularity:Popularity",
        "item_knn": "vae_cf_tf.linear.item_knn:ItemKNN",
        "ease": "vae_cf_tf.linear.ease:Ease",
    },
)
SIGNATURES = Registry(
    "signature",
    {
        "serving_default": "export.signatures:Scores",
        "recommend": "export.signatures:Recommend",
        "recommend_examples": "export.signatures:RecommendExamples",
        "recommend_filtered": "export.signatures:RecommendFiltered",
        "embed": "export.signatures:Embed",
        "similar_items": "export.similar:SimilarItems",
        "explain": "export.explanation:Explain",
    },
)
SIMILARITIES = Registry(
    "similarity of items",
    {
        "answer": "vae_cf_tf.models.similar:Answer",
        "item_item": "vae_cf_tf.models.similar:ItemItemRow",
        "decoder": "vae_cf_tf.models.similar:DecoderCosine",
    },
)
