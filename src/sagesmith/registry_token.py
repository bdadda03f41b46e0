"""The password with which Docker speaks to the registry: an access key's word that expires.

It is ``KEY_ID.EXPIRY.MAC``, the MAC made with the key's own secret. So whoever has keys (an agent those of its job's
role) can make one without asking, the server checks one with nothing but the key, and a key that is revoked takes its
passwords with it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

__all__ = ["USER", "check_password", "make_password", "named_key"]

USER: Final = "AWS"
"""The user name that goes with it, as Amazon ECR's."""


def make_password(access_key_id: str, secret_access_key: str, expires: float) -> str:
    """Return a password of that key, good until *expires* (seconds since 1970)."""
    return f"{access_key_id}.{int(expires)}.{_mac(access_key_id, secret_access_key, int(expires))}"


def named_key(password: str) -> str:
    """Return the id of the key that *password* claims to be of; "" if it has no such form."""
    return password.partition(".")[0] if password.count(".") == 2 else ""


def check_password(password: str, secret_access_key: str, now: float) -> bool:
    """Whether *password* was made with that secret and has not expired."""
    access_key_id, expires, mac = password.split(".")
    if not expires.isascii() or not expires.isdigit() or int(expires) < now:
        return False
    return hmac.compare_digest(mac.encode(), _mac(access_key_id, secret_access_key, int(expires)).encode())


def _mac(access_key_id: str, secret_access_key: str, expires: int) -> str:
    text = f"registry\n{access_key_id}\n{expires}".encode()
    return hmac.new(secret_access_key.encode(), text, hashlib.sha256).hexdigest()
