"""Measurements of claims, one script each; no part of the installed package."""
