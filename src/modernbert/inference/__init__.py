"""Inference: masks filled, embeddings, search, labels, entities, answers."""
