"""`python -m modernbert` is the command line."""

from modernbert.cli import main

main()
