"""Operations on the account as a whole: its alias and its numbers."""

from __future__ import annotations

from sagesmith.aws.call import Call, operation
from sagesmith.errors import AwsError
from sagesmith.services.iam._answers import Document
from sagesmith.store.identities import Identities

__all__ = ["Account"]


class Account:
    """GetAccountSummary, CreateAccountAlias, ListAccountAliases, DeleteAccountAlias."""

    service = "iam"

    def __init__(self, identities: Identities) -> None:
        self._identities = identities

    @operation("GetAccountSummary")
    def get_account_summary(self, call: Call, request: Document) -> Document:
        """Return how many of what there are, and how many there may be."""
        counts = {kind: len(self._identities.principals(kind)) for kind in ("user", "group", "role")}
        policies = self._identities.policies()
        return {
            "SummaryMap": {
                "Users": counts["user"],
                "Groups": counts["group"],
                "Roles": counts["role"],
                "Policies": len(policies),
                "PolicyVersionsInUse": sum(len(policy.versions) for policy in policies),
                "AccessKeysPerUserQuota": 2,
                "VersionsPerPolicyQuota": 5,
                "AccountMFAEnabled": 0,
                "AccountAccessKeysPresent": 0,
            }
        }

    @operation("ListAccountAliases")
    def list_account_aliases(self, call: Call, request: Document) -> Document:
        """Return the alias of the account, if it has one."""
        alias = self._identities.alias()
        return {"AccountAliases": [alias] if alias else [], "IsTruncated": False}

    @operation("CreateAccountAlias")
    def create_account_alias(self, call: Call, request: Document) -> None:
        """Give the account an alias in place of the one it had."""
        self._identities.set_alias(request["AccountAlias"])

    @operation("DeleteAccountAlias")
    def delete_account_alias(self, call: Call, request: Document) -> None:
        """Take the alias from the account."""
        if self._identities.alias() != request["AccountAlias"]:
            raise AwsError(
                "NoSuchEntity", f"The account alias {request['AccountAlias']} cannot be found.", status=404
            )
        self._identities.set_alias("")
