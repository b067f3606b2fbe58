"""Evaluation: suites of tasks over local data, and an adapter for mteb."""
