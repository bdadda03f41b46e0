"""Web pages at the server's own address; a client of the public API."""

from sagesmith.console._app import Console
from sagesmith.console._http import PREFIX

__all__ = ["PREFIX", "Console"]
