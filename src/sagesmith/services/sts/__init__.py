"""STS: caller identity and temporary keys."""

from __future__ import annotations

from sagesmith.services.sts._tokens import Policies, Tokens
from sagesmith.store.identities import Identities

__all__ = ["Policies", "Tokens", "handlers"]


def handlers(identities: Identities, policies: Policies, *, strict: bool = False) -> list[object]:
    """Return the handlers of STS's operations; see `Tokens`."""
    return [Tokens(identities, policies, strict=strict)]
