"""Access keys for the signature check, from identities."""

from __future__ import annotations

from sagesmith.aws.call import Caller, Key
from sagesmith.store.identities import Identities
from sagesmith.store.principals import AccessKey

__all__ = ["IdentityKeys"]

_REMEMBERED = 10_000


class IdentityKeys:
    """Whose `find` is a `KeyFinder` over *identities*: two dictionary look-ups for a key that was seen before."""

    def __init__(self, identities: Identities) -> None:
        self._identities = identities
        self._made: dict[str, tuple[AccessKey, Key]] = {}

    def find(self, access_key_id: str) -> Key | None:
        """Return the active key of that name, or None. An expired one is returned: its end is checked later."""
        self._identities.refresh()
        found = self._identities.find_key(access_key_id)
        if found is None or not found.active:
            return None
        made = self._made.get(access_key_id)
        if made is not None and made[0] is found:
            return made[1]
        key = Key(
            access_key_id=found.access_key_id,
            secret_access_key=found.secret_access_key,
            caller=Caller(
                account=self._identities.account_id,
                arn=found.caller_arn,
                user_id=found.user_id,
                access_key_id=found.access_key_id,
            ),
            session_token=found.session_token,
            expires=found.expires,
        )
        if len(self._made) >= _REMEMBERED:
            self._made.clear()
        self._made[access_key_id] = (found, key)
        return key
