"""Variational autoencoders for collaborative filtering, with flexible priors and gating, in TensorFlow and Keras 3."""

__version__ = "0.1.0"
