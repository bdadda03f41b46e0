"""Notebook instances: JupyterLabs that start, stop and keep their files, and the way into them."""

from sagesmith.notebooks.gateway import NotebookGateway
from sagesmith.notebooks.notebooks import Notebooks
from sagesmith.notebooks.volumes import Volumes

__all__ = ["NotebookGateway", "Notebooks", "Volumes"]
