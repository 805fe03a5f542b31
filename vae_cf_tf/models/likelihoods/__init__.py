"""Likelihoods of a user's items. Each has its own file and a line in `vae_cf_tf.registries`."""
