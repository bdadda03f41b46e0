"""The command line: thin commands that start a server or call one."""

from sagesmith.cli._app import main

__all__ = ["main"]
