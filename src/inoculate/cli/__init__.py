"""The command line: the only package that prints, exits and reads the environment."""

from inoculate.cli.app import main

__all__ = ["main"]
