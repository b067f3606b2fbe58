"""Evaluation: how good a model is, on suites of tasks over local data."""
