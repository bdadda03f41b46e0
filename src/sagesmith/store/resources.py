"""Resources: everything that has a kind, a name, an ARN and a document, with its events and tags.

Every change is one transaction that also appends an event, and the event's id becomes the resource's version:
versions rise, are never used twice (not even by a resource made anew under an old name), and name the event
that made the state. A change is a compare-and-set on that version, so of two that meet one is refused.

What is read often is stored ready to be answered: the document's text without its private members (those whose
names begin with a dollar sign, which lie beside it), and the text of its summary, as lists show it. Both are
written in the transaction that changes the document.

A claim gives one owner the right to drive a resource until its lease ends. Taking a claim over changes the
version, so that an owner whose lease ran out unnoticed can change nothing any more.
"""

# ruff: noqa: S608 - the statements are put together from constants; values are always parameters

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias, cast

from sagesmith.clock import Clock, system_clock
from sagesmith.errors import AwsError
from sagesmith.store.database import Connection, Database, Duplicate, Row
from sagesmith.store.documents import decode, encode
from sagesmith.store.queries import ListQuery, Page

__all__ = [
    "AlreadyExists",
    "Change",
    "Changed",
    "Event",
    "ListQuery",
    "Missing",
    "Page",
    "Resource",
    "Resources",
    "Summarize",
]


class AlreadyExists(AwsError):
    """The name or the ARN is taken."""

    def __init__(self, kind: str, name: str, arn: str) -> None:
        super().__init__("ResourceInUse", f"The {kind} {name!r} already exists ({arn}). Choose another name.")


class Changed(AwsError):
    """Somebody else changed or deleted the resource since it was read."""

    def __init__(self, arn: str) -> None:
        super().__init__(
            "ConflictException", f"{arn} was changed by another request in the meantime. Try again."
        )


class Missing(AwsError):
    """There is no such resource."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__("ValidationException", f"Could not find {kind} {name!r}.")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource as it was read.

    `created` and `modified` are seconds since 1970; `parent` is what the resource belongs to ("" if nothing).
    `text` is the document as JSON, without its private members; `private` is the JSON of those ("" if none).
    """

    kind: str
    region: str
    name: str
    arn: str
    status: str
    created: float
    modified: float
    version: int
    parent: str
    text: str = field(repr=False)
    private: str = field(repr=False)
    _document: dict[str, Any] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def document(self) -> dict[str, Any]:
        """The document. It belongs to the reader: changing it changes nothing stored."""
        document = self._document
        if document is None:
            document = decode(self.text)
            if self.private:
                document.update(decode(self.private))
            object.__setattr__(self, "_document", document)
        return document


Summarize: TypeAlias = Callable[[Resource], str]
"""Returns the text that stands for a resource in lists of its kind. It depends on nothing but the resource."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an edit wants changed; None leaves it as it is."""

    status: str | None = None
    document: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a resource: `created`, `status`, `document`, `claimed` or `deleted`.

    `before` and `after` are statuses (of `claimed`: owners).
    """

    time: float
    arn: str
    what: str
    before: str
    after: str
    why: str


_COLUMNS: Final = "kind, region, name, arn, status, created, modified, version, parent, document, private"
_NAMED: Final = "kind = :kind and region = :region and name = :name"
_GET: Final = f"select {_COLUMNS} from resources where {_NAMED}"
_TEXT: Final = f"select document, created, modified from resources where {_NAMED}"
_BY_ARN: Final = f"select {_COLUMNS} from resources where arn_key = :arn"
_EVENT: Final = (
    "insert into events (time, arn, what, before, after, why) "
    "values (:time, :arn, :what, :before, :after, :why) returning id"
)
_INSERT: Final = (
    "insert into resources (kind, region, name, arn, arn_key, status, parent, created, modified, version, "
    "owner, lease_until, summary, document, private) values (:kind, :region, :name, :arn, :arn_key, :status, "
    ":parent, :now, :now, :version, :owner, :lease_until, :summary, :document, :private)"
)
_CHANGE: Final = (
    "update resources set status = :status, modified = :now, version = :new_version, summary = :summary, "
    f"document = :document, private = :private where {_NAMED} and version = :version"
)
_DELETE: Final = f"delete from resources where {_NAMED} and version = :version"
_TAG: Final = (
    "insert into tags (arn, key, value) values (:arn, :key, :value) "
    "on conflict (arn, key) do update set value = excluded.value"
)


class Resources:
    """All resources of a server. Thread-safe; reads never wait for writes.

    Args:
        summarize: by kind, what makes the summaries that are stored; kinds without one have none.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock = system_clock,
        *,
        summarize: Mapping[str, Summarize] = MappingProxyType({}),
    ) -> None:
        self._database = database
        self._clock = clock
        self._summarize = summarize
        self._for_update = " for update" if database.dialect == "postgresql" else ""

    # ---- one resource ----

    def create(
        self,
        kind: str,
        region: str,
        name: str,
        *,
        arn: str,
        document: Mapping[str, Any],
        status: str = "",
        tags: Mapping[str, str] | None = None,
        parent: str = "",
        owner: str = "",
        lease_s: float = 0.0,
        why: str = "",
    ) -> Resource:
        """Store a new resource with its tags and return it.

        Args:
            owner, lease_s: who has the claim on it from the beginning, and for how long; see `claim`.

        Raises:
            AlreadyExists: the name or ARN is taken.
            ValueError, TypeError: the document cannot be stored (see `documents.encode`).
        """
        now = self._clock()
        text, private = _texts(document)
        new = Resource(kind, region, name, arn, status, now, now, 0, parent, text, private)
        row = {
            **self._row(new), "arn": arn, "arn_key": arn.lower(), "parent": parent, "now": now,
            "owner": owner, "lease_until": now + lease_s if owner else 0.0,
        }  # fmt: skip

        def work(connection: Connection) -> int:
            version = _append(connection, now, row["arn_key"], "created", "", status, why)
            connection.execute(_INSERT, {**row, "version": version})
            if tags:
                connection.execute_many(
                    _TAG, [{"arn": row["arn_key"], "key": k, "value": v} for k, v in tags.items()]
                )
            return version

        try:
            version = self._database.transact(work)
        except Duplicate:
            raise AlreadyExists(kind, name, arn) from None
        return replace(new, version=version)

    def get(self, kind: str, region: str, name: str) -> Resource | None:
        """Return the resource of exactly this name, or None."""
        with self._database.read() as connection:
            row = connection.row(_GET, {"kind": kind, "region": region, "name": name})
        return None if row is None else _resource(row)

    def text(self, kind: str, region: str, name: str) -> tuple[str, float, float] | None:
        """Return `text`, `created` and `modified` of the resource of exactly this name, or None.

        It is half of what `get` costs, for those who read and answer.
        """
        with self._database.read() as connection:
            row = connection.row(_TEXT, {"kind": kind, "region": region, "name": name})
        return cast("tuple[str, float, float] | None", row)

    def by_arn(self, arn: str) -> Resource | None:
        """Return the resource with this ARN, in upper or lower case, or None."""
        with self._database.read() as connection:
            row = connection.row(_BY_ARN, {"arn": arn.lower()})
        return None if row is None else _resource(row)

    def change(
        self,
        resource: Resource,
        *,
        status: str | None = None,
        document: Mapping[str, Any] | None = None,
        why: str = "",
    ) -> Resource:
        """Give *resource* a new status, a whole new document, or both, and return it as it is then.

        Raises:
            Changed: it is not any more as *resource* says.
        """
        texts = None if document is None else _texts(document)
        return self._database.transact(
            lambda connection: self._change(connection, resource, status, texts, why)
        )

    def update(
        self,
        kind: str,
        region: str,
        name: str,
        edit: Callable[[Resource], Change | None],
        why: str = "",
        *,
        also: Callable[[Connection], None] | None = None,
    ) -> Resource:
        """Read, *edit* and write in one transaction; nothing comes between. Return the resource as it is then.

        *edit* gets the present state and returns what to change, or None for nothing. It must be quick, may be
        called more than once, and must not use the database. If there is a change, *also* writes what belongs to
        it, in the same transaction.

        Raises:
            Missing: there is no such resource.
        """

        def work(connection: Connection) -> Resource:
            row = connection.row(_GET + self._for_update, {"kind": kind, "region": region, "name": name})
            if row is None:
                raise Missing(kind, name)
            resource = _resource(row)
            change = edit(resource)
            if change is None:
                return resource
            if also is not None:
                also(connection)
            texts = None if change.document is None else _texts(change.document)
            return self._change(connection, resource, change.status, texts, why)

        return self._database.transact(work)

    def delete(self, resource: Resource, *, why: str = "") -> None:
        """Remove *resource* and its tags; its events stay. Nothing happens if it is gone already.

        Raises:
            Changed: it is not any more as *resource* says.
        """
        now = self._clock()
        key = resource.arn.lower()

        def work(connection: Connection) -> None:
            if not connection.execute(_DELETE, {**_name_of(resource), "version": resource.version}):
                if connection.row(_GET, _name_of(resource)) is None:
                    return
                raise Changed(resource.arn)
            connection.execute("delete from tags where arn = :arn", {"arn": key})
            _append(connection, now, key, "deleted", resource.status, "", why)

        self._database.transact(work)

    # ---- many ----

    def list(self, kind: str, region: str | None, query: ListQuery) -> Page[Resource]:
        """Return a page of the resources of *kind* in *region* (None: in all).

        Raises:
            AwsError: `ValidationException`, the token is malformed or of another query.
        """
        conditions, parameters = query.conditions(kind, region, self._database.dialect)
        with self._database.read() as connection:
            rows = connection.rows(f"select {_COLUMNS} from resources {conditions}", parameters)
        key = query.key(region)
        items = [_resource(row) for row in rows]
        return query.page(kind, region, items, lambda item: [getattr(item, column) for column in key])

    def summaries(self, kind: str, region: str | None, query: ListQuery) -> Page[str]:
        """Return the page that `list` would, as summaries: they are read as they lie there.

        Raises:
            AwsError: `ValidationException`, the token is malformed or of another query.
            KeyError: nothing summarizes resources of *kind*.
        """
        conditions, parameters = query.conditions(kind, region, self._database.dialect)
        columns = ", ".join(query.key(region))
        with self._database.read() as connection:
            rows = connection.rows(f"select summary, {columns} from resources {conditions}", parameters)
        page = query.page(kind, region, rows, lambda row: row[1:])
        texts = [row[0] for row in page.items]
        if "" in texts:  # written by somebody who had no `summarize`
            texts = [self._summarize[kind](resource) for resource in self.list(kind, region, query).items]
        return Page(texts, page.next_token)

    def with_status(self, kind: str, statuses: Iterable[str]) -> builtins.list[Resource]:
        """Return every resource of *kind*, in all regions, that has one of *statuses*; the oldest first."""
        wanted = {f"status_{number}": status for number, status in enumerate(statuses)}
        if not wanted:
            return []
        names = ", ".join(":" + name for name in wanted)
        sql = f"select {_COLUMNS} from resources where kind = :kind and status in ({names}) order by created, id"
        with self._database.read() as connection:
            rows = connection.rows(sql, {"kind": kind, **wanted})
        return [_resource(row) for row in rows]

    def count_by_status(self, kind: str) -> dict[str, int]:
        """Return how many resources of *kind*, in all regions, have each status."""
        with self._database.read() as connection:
            rows = connection.rows(
                "select status, count(*) from resources where kind = :kind group by status", {"kind": kind}
            )
        return {status: int(count) for status, count in rows}

    # ---- claims ----

    def claim(self, resource: Resource, owner: str, lease_s: float) -> Resource | None:
        """Give *owner* the right to drive *resource* for *lease_s* seconds, or renew it.

        Nothing is written if *owner* has it for more than half of that already.

        Returns:
            The resource as it is now (look at its status again), or None: it is gone, or another owner has it.
        """
        now = self._clock()
        state = f"select owner, lease_until, {_COLUMNS} from resources where {_NAMED}"
        lease = {**_name_of(resource), "owner": owner, "lease_until": now + lease_s}
        with self._database.read() as connection:
            row = connection.row(state, _name_of(resource))
        if row is not None and row[0] == owner and row[1] > now + lease_s / 2:
            current = _resource(row[2:])
            return current if current.created == resource.created else None

        def work(connection: Connection) -> Resource | None:
            row = connection.row(state + self._for_update, _name_of(resource))
            if row is None or (row[0] not in ("", owner) and row[1] > now):
                return None
            current = _resource(row[2:])
            if current.created != resource.created:  # made anew under the same name
                return None
            version = current.version
            if row[0] != owner:
                version = _append(connection, now, current.arn.lower(), "claimed", row[0], owner, "")
            connection.execute(
                "update resources set owner = :owner, lease_until = :lease_until, version = :version "
                f"where {_NAMED}",
                {**lease, "version": version},
            )
            return replace(current, version=version)

        return self._database.transact(work)

    def unclaim(self, resource: Resource, owner: str) -> None:
        """End the claim of *owner* on *resource*, if it still has one."""
        sql = f"update resources set owner = '', lease_until = 0 where {_NAMED} and owner = :owner"
        self._database.transact(
            lambda connection: connection.execute(sql, {**_name_of(resource), "owner": owner})
        )

    # ---- events and tags ----

    def events(self, arn: str, *, since: float = 0.0) -> builtins.list[Event]:
        """Return what happened to *arn* at or after *since*, in order.

        A name that was deleted and used again has the events of both resources: pass the present one's
        `created` as *since* to see its own only.
        """
        sql = (
            "select time, arn, what, before, after, why from events "
            "where arn = :arn and time >= :since order by id"
        )
        with self._database.read() as connection:
            rows = connection.rows(sql, {"arn": arn.lower(), "since": since})
        return [Event(*row) for row in rows]

    def tags(self, arn: str) -> dict[str, str]:
        """Return the tags of *arn*, sorted by key."""
        with self._database.read() as connection:
            sql = "select key, value from tags where arn = :arn order by key"
            return dict(connection.rows(sql, {"arn": arn.lower()}))

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        """Add *tags* to *arn*; a key that is there gets the new value."""
        rows = [{"arn": arn.lower(), "key": key, "value": value} for key, value in tags.items()]
        self._database.transact(lambda connection: connection.execute_many(_TAG, rows))

    def untag(self, arn: str, keys: Iterable[str]) -> None:
        """Remove the tags with *keys* from *arn*; those it does not have are no fault."""
        rows = [{"arn": arn.lower(), "key": key} for key in keys]
        sql = "delete from tags where arn = :arn and key = :key"
        self._database.transact(lambda connection: connection.execute_many(sql, rows))

    def list_tagged(self, kind: str, key: str, value: str | None = None) -> builtins.list[Resource]:
        """Return the resources of *kind* with tag *key* (and *value*, unless None), ordered by ARN."""
        columns = ", ".join(f"r.{column}" for column in _COLUMNS.split(", "))
        sql = (
            f"select {columns} from tags t join resources r on r.arn_key = t.arn "
            "where t.key = :key and r.kind = :kind"
            + ("" if value is None else " and t.value = :value")
            + " order by r.arn_key"
        )
        parameters = {"kind": kind, "key": key} | ({} if value is None else {"value": value})
        with self._database.read() as connection:
            return [_resource(row) for row in connection.rows(sql, parameters)]

    # ---- inside a transaction ----

    def _change(
        self,
        connection: Connection,
        resource: Resource,
        status: str | None,
        texts: tuple[str, str] | None,
        why: str,
    ) -> Resource:
        now = max(self._clock(), resource.created)
        after = resource.status if status is None else status
        what = "document" if after == resource.status else "status"
        version = _append(connection, now, resource.arn.lower(), what, resource.status, after, why)
        text, private = texts or (resource.text, resource.private)
        changed = replace(resource, status=after, modified=now, version=version, text=text, private=private)
        row = {**self._row(changed), "now": now, "version": resource.version, "new_version": version}
        if not connection.execute(_CHANGE, row):
            raise Changed(resource.arn)
        return changed

    def _row(self, resource: Resource) -> dict[str, Any]:
        """Return name and content of *resource* as parameters."""
        summarize = self._summarize.get(resource.kind)
        return {
            **_name_of(resource), "status": resource.status, "document": resource.text,
            "private": resource.private, "summary": summarize(resource) if summarize is not None else "",
        }  # fmt: skip


def _texts(document: Mapping[str, Any]) -> tuple[str, str]:
    """Return the JSON of *document* without its private members, and that of those."""
    private = {name: value for name, value in document.items() if name[:1] == "$"}
    if not private:
        return encode(document), ""
    return encode({name: value for name, value in document.items() if name not in private}), encode(private)


_SETTERS: Final = tuple(getattr(Resource, column.name).__set__ for column in fields(Resource))


def _resource(row: Row) -> Resource:
    """Return the resource of `_COLUMNS`; four times as quick as the constructor of a frozen class."""
    resource: Resource = object.__new__(Resource)
    for setter, value in zip(_SETTERS, (*row, None), strict=True):
        setter(resource, value)
    return resource


def _name_of(resource: Resource) -> dict[str, Any]:
    return {"kind": resource.kind, "region": resource.region, "name": resource.name}


def _append(
    connection: Connection, time: float, arn_key: str, what: str, before: str, after: str, why: str
) -> int:
    row = connection.row(
        _EVENT, {"time": time, "arn": arn_key, "what": what, "before": before, "after": after, "why": why}
    )
    if row is None:
        raise RuntimeError("the database returned no id for an event")
    return int(row[0])
