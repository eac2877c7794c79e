"""`python -m perfkit` is `perfkit`."""

from perfkit.cli.main import run

run()
