"""Models and what they are made of: histories, blocks, encoders, decoders, priors, likelihoods."""
