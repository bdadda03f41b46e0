"""How JupyterLab of a notebook instance knows who asks: the server has checked, and says so with a token.

The token is in no page, no cookie and no environment of a kernel. This module is loaded by Jupyter itself.
"""

from __future__ import annotations

import hmac
import os
from typing import Any

from jupyter_server.auth import IdentityProvider, User

__all__ = ["HEADER", "Proxied"]

HEADER = "X-Sagesmith-Notebook"
_TOKEN = os.environ.pop("SAGESMITH_NOTEBOOK_TOKEN", "")
_USER = "ec2-user"


class Proxied(IdentityProvider):  # type: ignore[misc]
    """Lets in what comes from the server, as the notebook's one user."""

    @property
    def auth_enabled(self) -> bool:
        """Always: a request without the token is nobody's."""
        return True

    @property
    def login_available(self) -> bool:
        """Never: one comes in by the server's presigned URLs."""
        return False

    @property
    def logout_available(self) -> bool:
        """Never."""
        return False

    async def get_user(self, handler: Any) -> Any:
        """Return the user if the request has the token."""
        given = handler.request.headers.get(HEADER, "")
        if not _TOKEN or not hmac.compare_digest(given.encode(), _TOKEN.encode()):
            return None
        # As with Jupyter's own token. The server has compared the origin with the host already.
        handler._token_authenticated = True
        return User(_USER, _USER, _USER, "ec")
