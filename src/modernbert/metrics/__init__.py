"""Metrics: scores of labels, numbers, entities, answers and rankings; and the plain model.

Scores are plain NumPy, checked against scikit-learn, scipy, seqeval and ir-measures. The plain
model is the floor that a classifier's scores stand beside.
"""
