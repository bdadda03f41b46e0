"""STS: caller identity and temporary keys."""

from sagesmith.services.sts._tokens import Policies, Tokens

__all__ = ["Policies", "Tokens"]
