"""Models in the formats of other engines, checked against the model that they are made from."""
