"""Priors of the latent variables. Each has its own file and a line in `vae_cf_tf.registries`."""
