"""Metrics: scores of labels, numbers, entities, answers and rankings.

Everything is plain NumPy and checked against scikit-learn, scipy, seqeval and ir-measures.
"""
