"""The command line: a module for each verb or group of verbs; the only room that prints.

Data goes to stdout, progress and messages to stderr. The verbs import what they need when they
run, so that `--help` answers at once.
"""

from modernbert.cli.app import main

__all__ = ["main"]
