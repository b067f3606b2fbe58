"""Inference: the use of a model."""
