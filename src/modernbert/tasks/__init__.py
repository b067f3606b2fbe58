"""Tasks: a purpose, for which a model, its data and the training come together."""
