"""Pretraining: from a recipe and token shards to a model that predicts masked tokens."""
