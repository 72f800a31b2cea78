"""The command line ``rlaif``: argument parsing only, one module a command."""

from rlaif_sdk.cli.main import app, main

__all__ = ["app", "main"]
