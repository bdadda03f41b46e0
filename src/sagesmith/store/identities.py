"""Users, groups, roles, policies and access keys: kept in the database, answered from memory.

Every request asks for a key and for what its holder may do, so reads are dictionary look-ups; the first
look-up of a name reads one row. Every change is one transaction, after which `generation` is another number:
whoever derives something from identities (compiled policies, decisions) remembers the generation and derives
again when it has moved. Servers that share a database notice each other's changes within `refresh_s`.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sagesmith.arns import Arn
from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store import _identity_rows as rows
from sagesmith.store.database import Connection, Database
from sagesmith.store.principals import (
    PREFIXES,
    AccessKey,
    ManagedPolicy,
    PolicyVersion,
    Principal,
    PrincipalKind,
    new_id,
    role_id,
)

__all__ = ["ADMINISTRATOR", "Identities"]

ADMINISTRATOR: Final = "administrator"
"""The user that the first start makes."""

SAGEMAKER_TRUST: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sagemaker.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)

_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ABSENT_REMEMBERED: Final = 10_000
"""How many names without a principal are remembered: bounded, since clients choose them."""


class Identities:
    """The identities of one account. Thread-safe; what was read before is answered without the database.

    Every method raises `AwsError` in IAM's codes: ``NoSuchEntity``, ``EntityAlreadyExists``.

    Args:
        database: migrated already.
        account_id: the account that every identity belongs to.
        default_role: name of the role whose permissions an undeclared role has.
        refresh_s: how often at most a shared database is asked whether another server changed something.
    """

    def __init__(
        self,
        database: Database,
        account_id: str,
        *,
        default_role: str = "SagesmithExecutionRole",
        partition: str = "aws",
        clock: Clock = system_clock,
        refresh_s: float = 1.0,
    ) -> None:
        self.account_id = account_id
        self.default_role = default_role
        self.generation = 0
        self._database = database
        self._is_shared = not database.is_local
        self._partition = partition
        self._clock = clock
        self._refresh_s = refresh_s
        self._lock = threading.Lock()
        self._principals: dict[tuple[str, str], Principal | None] = {}
        self._policies: dict[str, ManagedPolicy] = {}
        self._keys: dict[str, AccessKey] = {}
        self._uses: dict[str, tuple[float, str, str]] = {}
        self._key_changes = 0
        self._next_refresh = 0.0
        self._changes_seen = 0

    # Principals

    def arn(self, resource: str) -> str:
        """Return the IAM ARN of *resource*, such as ``role/path/name``, in this account."""
        return str(Arn("iam", "", self.account_id, resource, self._partition))

    def principal(self, kind: PrincipalKind, name: str) -> Principal | None:
        """Return the principal of that name (upper and lower case are the same), or None."""
        key = (kind, name.lower())
        try:
            return self._principals[key]
        except KeyError:
            pass
        seen = self.generation
        with self._database.read() as connection:
            document = rows.read_entity(connection, *key)
        found = None if document is None else rows.principal_from(document)
        with self._lock:
            if self.generation == seen and (found or len(self._principals) < _ABSENT_REMEMBERED):
                self._principals[key] = found
        return found

    def require(self, kind: PrincipalKind, name: str) -> Principal:
        """Return the principal of that name, or raise `NoSuchEntity`."""
        found = self.principal(kind, name)
        if found is None:
            raise _no_principal(kind, name)
        return found

    def principals(self, kind: PrincipalKind) -> list[Principal]:
        """Return all principals of *kind*, sorted by name."""
        with self._database.read() as connection:
            return [rows.principal_from(document) for document in rows.read_entities(connection, kind)]

    def create_principal(self, kind: PrincipalKind, name: str, *, path: str = "/", **more: Any) -> Principal:
        """Make a principal and return it. *more* are further members of `Principal`."""
        principal = Principal(
            kind=kind,
            name=name,
            path=path,
            id=new_id(PREFIXES[kind]),
            arn=self.arn(f"{kind}{path}{name}"),
            created=self._clock(),
            **more,
        )
        with self._changing() as connection:
            rows.add_entity(connection, kind, name.lower(), principal, taken=_taken(kind, name))
        return principal

    def change_principal(
        self, kind: PrincipalKind, name: str, edit: Callable[[Principal], Principal]
    ) -> Principal:
        """Replace the principal of that name by what *edit* returns for it, in one transaction."""
        with self._changing() as connection:
            changed = edit(_read_principal(connection, kind, name))
            rows.write_entity(connection, kind, name.lower(), changed)
        return changed

    def rename_principal(self, kind: PrincipalKind, name: str, new_name: str, path: str) -> Principal:
        """Give a user or group another name and path; keys and memberships follow. Returns it."""
        arn = self.arn(f"{kind}{path}{new_name}")
        with self._changing() as connection:
            changed = replace(_read_principal(connection, kind, name), name=new_name, path=path, arn=arn)
            rows.delete_entity(connection, kind, name.lower())
            rows.add_entity(connection, kind, new_name.lower(), changed, taken=_taken(kind, new_name))
            if kind == "user":
                for key in rows.keys_of(connection, "user", name):
                    rows.write_key(connection, replace(key, holder=new_name, caller_arn=arn))
            elif kind == "group":
                for user in map(rows.principal_from, rows.read_entities(connection, "user")):
                    if name in user.groups:
                        groups = tuple(new_name if group == name else group for group in user.groups)
                        rows.write_entity(connection, "user", user.name.lower(), replace(user, groups=groups))
        return changed

    def delete_principal(self, kind: PrincipalKind, name: str) -> None:
        """Delete the principal; the keys it holds go with it."""
        with self._changing() as connection:
            if not rows.delete_entity(connection, kind, name.lower()):
                raise _no_principal(kind, name)
            connection.execute(
                "delete from iam_keys where holder = :holder", {"holder": rows.holder_of(kind, name)}
            )

    def stand_in(self, name: str) -> Principal:
        """Return what an undeclared role *name* is taken for: the default role under that name."""
        default = self.principal("role", self.default_role)
        if default is None:
            default = Principal("role", name, "/", "", "", self._clock(), trust=SAGEMAKER_TRUST)
        return replace(
            default,
            name=name,
            path="/",
            id=role_id(self.account_id, name),
            arn=self.arn(f"role/{name}"),
            description="",
            tags={},
        )

    # Managed policies of this account

    def policy(self, arn: str) -> ManagedPolicy | None:
        """Return the managed policy of that ARN, or None."""
        known = self._policies.get(arn)
        if known is not None:
            return known
        seen = self.generation
        with self._database.read() as connection:
            document = rows.read_entity(connection, "policy", arn.lower())
        if document is None:
            return None
        found = rows.policy_from(document)
        with self._lock:
            if self.generation == seen:
                self._policies[arn] = found
        return found

    def policies(self) -> list[ManagedPolicy]:
        """Return all managed policies of the account, sorted by ARN."""
        with self._database.read() as connection:
            return [rows.policy_from(document) for document in rows.read_entities(connection, "policy")]

    def create_policy(
        self,
        name: str,
        document: str,
        *,
        path: str = "/",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ManagedPolicy:
        """Make a managed policy with *document* (JSON text) as its version ``v1``."""
        now = self._clock()
        policy = ManagedPolicy(
            name=name,
            path=path,
            id=new_id(PREFIXES["policy"]),
            arn=self.arn(f"policy{path}{name}"),
            created=now,
            modified=now,
            versions=(PolicyVersion("v1", document, now),),
            default="v1",
            description=description,
            tags=tags or {},
        )
        taken = f"A policy called {name} already exists. Duplicate names are not allowed."
        with self._changing() as connection:
            rows.add_entity(connection, "policy", policy.arn.lower(), policy, taken=taken)
        return policy

    def change_policy(self, arn: str, edit: Callable[[ManagedPolicy], ManagedPolicy]) -> ManagedPolicy:
        """Replace the policy by what *edit* returns for it, in one transaction."""
        with self._changing() as connection:
            document = rows.read_entity(connection, "policy", arn.lower())
            if document is None:
                raise _absent(f"Policy {arn} was not found.")
            changed = replace(edit(rows.policy_from(document)), modified=self._clock())
            rows.write_entity(connection, "policy", arn.lower(), changed)
        return changed

    def delete_policy(self, arn: str) -> None:
        """Delete the policy."""
        with self._changing() as connection:
            if not rows.delete_entity(connection, "policy", arn.lower()):
                raise _absent(f"Policy {arn} was not found.")

    # The account

    def alias(self) -> str:
        """Return the account's alias, empty if it has none."""
        with self._database.read() as connection:
            document = rows.read_entity(connection, "account", "alias")
        return "" if document is None else str(document["alias"])

    def set_alias(self, alias: str) -> None:
        """Set the account's alias; empty takes it away."""
        with self._database.write() as connection:
            connection.execute(
                "insert into iam_entities (kind, key, document) values ('account', 'alias', :document)"
                " on conflict (kind, key) do update set document = :document",
                {"document": json.dumps({"alias": alias})},
            )

    # Access keys

    def find_key(self, access_key_id: str) -> AccessKey | None:
        """Return the key of that name, active or not, expired or not; None if there is none."""
        known = self._keys.get(access_key_id)
        if known is not None:
            return known
        seen = self._key_changes
        with self._database.read() as connection:
            found = rows.find_key(connection, access_key_id)
        if found is not None:
            with self._lock:
                if self._key_changes == seen:
                    self._keys[access_key_id] = found
        return found

    def keys_of(self, user: str) -> list[AccessKey]:
        """Return the lasting keys of *user*, oldest first."""
        with self._database.read() as connection:
            found = rows.keys_of(connection, "user", user)
        return sorted((key for key in found if key.session_token is None), key=lambda key: key.created)

    def create_key(self, user: str) -> AccessKey:
        """Make a lasting access key for *user*."""
        return self._issue_as(self.require("user", user), lasting=True)

    def change_key(self, user: str, access_key_id: str, *, active: bool) -> None:
        """Switch a key of *user* on or off."""
        with self._changing() as connection:
            found = rows.keys_of(connection, "user", user)
            key = next((key for key in found if key.access_key_id == access_key_id), None)
            if key is None:
                raise _absent(f"The Access Key with id {access_key_id} cannot be found.")
            rows.write_key(connection, replace(key, active=active))

    def delete_key(self, user: str, access_key_id: str) -> None:
        """Delete a key of *user*."""
        with self._changing() as connection:
            gone = connection.execute(
                "delete from iam_keys where access_key_id = :access_key_id and holder = :holder",
                {"access_key_id": access_key_id, "holder": rows.holder_of("user", user)},
            )
            if not gone:
                raise _absent(f"The Access Key with id {access_key_id} cannot be found.")

    def note_use(self, access_key_id: str, time: float, service: str, region: str) -> None:
        """Remember, in memory only, when the key was used. Cheap enough for every request."""
        self._uses[access_key_id] = (time, service, region)

    def last_use(self, access_key_id: str) -> tuple[float, str, str] | None:
        """Return time, service and region of the key's last use since this server started, or None."""
        return self._uses.get(access_key_id)

    # Temporary keys

    def issue(
        self,
        role_arn: str,
        session_name: str,
        duration_s: float | None,
        session_policy: str | Mapping[str, Any] | None = None,
        *,
        policy_arns: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> AccessKey:
        """Make a temporary key of a role, which need not be declared.

        Args:
            role_arn: the role's ARN, or its name.
            session_name: what tells this session from others in logs and in the caller's ARN.
            duration_s: how long the key works; None until it is revoked.
            session_policy: limits what the key may do; as JSON text or as the document itself.
            policy_arns: managed policies that limit it as well.
            tags: session tags.
        """
        key = self.draft(
            role_arn, session_name, duration_s, session_policy, policy_arns=policy_arns, tags=tags
        )
        self._add_key(key)
        return key

    def draft(
        self,
        role_arn: str,
        session_name: str,
        duration_s: float | None,
        session_policy: str | Mapping[str, Any] | None = None,
        *,
        policy_arns: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
    ) -> AccessKey:
        """Return the key that `issue` would make. It works once `store` has written it."""
        name = role_arn.rpartition("/")[2]
        role = self.principal("role", name) or self.stand_in(name)
        if session_policy is not None and not isinstance(session_policy, str):
            session_policy = json.dumps(session_policy)
        now = self._clock()
        session = f"assumed-role/{role.name}/{session_name}"
        return AccessKey(
            access_key_id=new_id("ASIA", 16),
            secret_access_key=_secret(),
            holder_kind="role",
            holder=role.name,
            caller_arn=str(Arn("sts", "", self.account_id, session, self._partition)),
            user_id=f"{role.id}:{session_name}",
            created=now,
            session_token=_token(),
            expires=None if duration_s is None else now + duration_s,
            session_policies=() if session_policy is None else (session_policy,),
            session_policy_arns=tuple(policy_arns),
            session_tags=tags or {},
        )

    def store(self, key: AccessKey, connection: Connection) -> None:
        """Write a key that `draft` returned, in a transaction that is under way: with what needs it, or not at all."""
        past = (
            self._clock() - 86400
        )  # an expired key is kept for a day, to be told so instead of being unknown
        connection.execute("delete from iam_keys where expires < :past", {"past": past})
        rows.add_key(connection, key)

    def issue_for_user(self, user: str, duration_s: float) -> AccessKey:
        """Make a temporary key of a user: it acts as the user, and ends."""
        return self._issue_as(self.require("user", user), lasting=False, duration_s=duration_s)

    def revoke(self, access_key_id: str) -> None:
        """Let the key work no longer; without complaint if it is gone already."""

        def work(connection: Connection) -> None:
            connection.execute(
                "delete from iam_keys where access_key_id = :access_key_id", {"access_key_id": access_key_id}
            )
            rows.count_change(connection)

        self._database.transact(work)
        with self._lock:  # what was derived about others stays true: jobs end often
            self._key_changes += 1
            self._keys.pop(access_key_id, None)

    def _issue_as(self, user: Principal, *, lasting: bool, duration_s: float = 0) -> AccessKey:
        now = self._clock()
        key = AccessKey(
            access_key_id=new_id("AKIA" if lasting else "ASIA", 16),
            secret_access_key=_secret(),
            holder_kind="user",
            holder=user.name,
            caller_arn=user.arn,
            user_id=user.id,
            created=now,
            session_token=None if lasting else _token(),
            expires=None if lasting else now + duration_s,
        )
        self._add_key(key)
        return key

    def _add_key(self, key: AccessKey) -> None:
        """Add *key*. Nothing derived before can be about a new key, so the generation stays."""
        self._database.transact(partial(self.store, key))
        with self._lock:
            self._keys[key.access_key_id] = key

    # The first start

    def ensure_administrator(self) -> AccessKey:
        """Make what the first start needs, where it is not there: administrator, its key, the default role.

        The default role may do what SageMaker's console gives an execution role that may use any bucket.

        Returns:
            An active key of the administrator: the oldest, or a new one if it has none.
        """
        if self.principal("user", ADMINISTRATOR) is None:
            self.create_principal("user", ADMINISTRATOR, attached=(self._managed("AdministratorAccess"),))
        if self.principal("role", self.default_role) is None:
            self.create_principal(
                "role",
                self.default_role,
                description="What jobs and endpoints may do; also stands in for roles that are not declared.",
                trust=SAGEMAKER_TRUST,
                max_session_s=43200,
                attached=(self._managed("AmazonSageMakerFullAccess"), self._managed("AmazonS3FullAccess")),
            )
        active = [key for key in self.keys_of(ADMINISTRATOR) if key.active]
        return active[0] if active else self.create_key(ADMINISTRATOR)

    def _managed(self, name: str) -> str:
        return str(Arn("iam", "", "aws", f"policy/{name}", self._partition))

    # Memory and database

    def refresh(self) -> None:
        """Notice what other servers changed. Does nothing on a database that only this server uses."""
        if not self._is_shared:
            return
        now = self._clock()
        if now < self._next_refresh:
            return
        self._next_refresh = now + self._refresh_s
        with self._database.read() as connection:
            number = rows.changes(connection)
        if number != self._changes_seen:
            self._changes_seen = number
            self._forget()

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        """Give a write transaction; what is in memory is forgotten once it has committed."""
        with self._database.write() as connection:
            yield connection
            rows.count_change(connection)
        self._forget()

    def _forget(self) -> None:
        with self._lock:
            self.generation += 1
            self._key_changes += 1
            self._principals.clear()
            self._policies.clear()
            self._keys.clear()


def _read_principal(connection: Connection, kind: PrincipalKind, name: str) -> Principal:
    document = rows.read_entity(connection, kind, name.lower())
    if document is None:
        raise _no_principal(kind, name)
    return rows.principal_from(document)


def _absent(message: str) -> AwsError:
    return AwsError("NoSuchEntity", message, status=404)


def _no_principal(kind: str, name: str) -> AwsError:
    return _absent(f"The {kind} with name {name} cannot be found.")


def _taken(kind: str, name: str) -> str:
    return f"{kind.capitalize()} with name {name} already exists."


def _secret() -> str:
    """Return 40 characters, 240 random bits, in the form of AWS's secrets."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(40))


def _token() -> str:
    return "Sagesmith" + secrets.token_urlsafe(120)
