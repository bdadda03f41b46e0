"""Policy documents: JSON text in, statements ready to be matched out, or a sentence about every fault.

Three kinds of policies share the grammar: identity policies (what may its holder do), resource policies (who
may do what with this resource; they name principals) and trust policies (who may assume this role; the
resource is the role itself).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sagesmith.errors import AwsError
from sagesmith.services.iam._conditions import Condition, parse_operator
from sagesmith.services.iam._patterns import Pattern

__all__ = ["Kind", "Policy", "Principals", "Statement", "check_document", "parse_policy"]

Kind: TypeAlias = Literal["identity", "resource", "trust"]

VERSIONS: Final = ("2008-10-17", "2012-10-17")
MAX_CHARACTERS: Final = 131_072
"""The largest document that IAM's model accepts."""

_ELEMENTS: Final = frozenset(
    (
        "Sid",
        "Effect",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Principal",
        "NotPrincipal",
        "Condition",
    )
)
_ACTION: Final = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+|\*:\*")
_PRINCIPAL_TYPES: Final = ("AWS", "Service", "Federated", "CanonicalUser")
_CASELESS_RESOURCE: Final = re.compile(r"arn:[^:]*:sagemaker:")
"""SageMaker writes names in ARNs in lower case, so case does not tell its resources apart."""


@dataclass(frozen=True, slots=True)
class Principals:
    """Who a statement is about: everyone, or identifiers by type (``AWS``, ``Service``, ...)."""

    everyone: bool
    named: Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `actions` and `resources` say what it is about, or what not if `not_...` is set."""

    sid: str
    allow: bool
    actions: Sequence[Pattern]
    not_actions: bool
    resources: Sequence[Pattern]
    not_resources: bool
    conditions: Sequence[Condition]
    principals: Principals | None = None
    not_principals: bool = False
    index: int = 0

    @property
    def is_everything(self) -> bool:
        """Whether it allows every action on every resource without condition."""
        return (
            self.allow
            and not (self.conditions or self.not_actions or self.not_resources)
            and any(pattern.text in ("*", "*:*") for pattern in self.actions)
            and any(pattern.text == "*" for pattern in self.resources)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy ready to be evaluated, with where it comes from."""

    source_id: str
    source_type: str
    text: str
    statements: Sequence[Statement]


def check_document(text: str, kind: Kind = "identity") -> None:
    """Raise `MalformedPolicyDocument` unless *text* is a policy of that kind; all faults in one message."""
    parse_policy(text, kind)


def parse_policy(text: str, kind: Kind = "identity", *, source_id: str = "", source_type: str = "") -> Policy:
    """Return *text* ready to be evaluated.

    Raises:
        AwsError: `MalformedPolicyDocument`, naming every fault and where it is.
    """
    if len(text) > MAX_CHARACTERS:
        raise _malformed([f"The policy has {len(text)} characters, more than {MAX_CHARACTERS}."])
    try:
        document = json.loads(text, object_pairs_hook=_object)
    except _DuplicateError as error:
        raise _malformed([str(error)]) from error
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise _malformed([f"Syntax errors in policy: it is not valid JSON{where}."]) from error
    faults: list[str] = []
    statements = tuple(_Reader(kind, faults).read(document))
    if faults:
        raise _malformed(faults)
    return Policy(source_id, source_type, text, statements)


class _DuplicateError(Exception):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _DuplicateError(f"Syntax errors in policy: the key {twice!r} stands twice in one object.")
    return result


def _malformed(faults: Sequence[str]) -> AwsError:
    shown = " ".join(faults[:10])
    more = f" And {len(faults) - 10} more." if len(faults) > 10 else ""
    return AwsError("MalformedPolicyDocument", shown + more)


class _Reader:
    """Reads one document, noting faults instead of stopping at the first."""

    def __init__(self, kind: Kind, faults: list[str]) -> None:
        self._kind = kind
        self._faults = faults
        self._variables = True

    def read(self, document: Any) -> Iterator[Statement]:
        if not isinstance(document, dict):
            self._faults.append("Syntax errors in policy: it must be a JSON object.")
            return
        unknown = sorted(set(document) - {"Version", "Id", "Statement"})
        if unknown:
            self._faults.append(
                f"Unknown elements {', '.join(unknown)}: a policy has Version, Id and Statement."
            )
        version = document.get("Version", VERSIONS[0])
        if version not in VERSIONS:
            self._faults.append(f"Policy document must be version 2012-10-17 or 2008-10-17, not {version!r}.")
        self._variables = version == VERSIONS[1]
        given = document.get("Statement")
        statements = [given] if isinstance(given, dict) else given
        if not isinstance(statements, list):
            self._faults.append(
                "Missing required field Statement: it must be a statement or a list of statements."
            )
            return
        sids = [statement.get("Sid") for statement in statements if isinstance(statement, dict)]
        for sid in {sid for sid in sids if isinstance(sid, str) and sid and sids.count(sid) > 1}:
            self._faults.append(f"Statement IDs (SID) in a single policy must be unique, but {sid!r} is not.")
        for index, statement in enumerate(statements):
            if isinstance(statement, dict):
                yield self._statement(index, statement)
            else:
                self._faults.append(f"Statement {index + 1} must be a JSON object.")

    def _statement(self, index: int, given: dict[str, Any]) -> Statement:
        where = f"Statement {index + 1}"
        sid = given.get("Sid", "")
        if not isinstance(sid, str):
            self._fault(where, "Sid must be a string")
        elif sid:
            where += f" ({sid[:64]})"
        unknown = sorted(set(given) - _ELEMENTS)
        if unknown:
            self._fault(where, f"has unknown elements {', '.join(unknown)}")
        effect = given.get("Effect")
        if effect not in ("Allow", "Deny"):
            self._fault(where, f"Effect must be Allow or Deny, not {effect!r}")
        actions, not_actions = self._patterns(where, given, "Action", _action_fault, ignore_case=True)
        resources, not_resources = self._resources(where, given)
        principals, not_principals = self._principals(where, given)
        return Statement(
            sid=str(sid),
            allow=effect == "Allow",
            actions=actions,
            not_actions=not_actions,
            resources=resources,
            not_resources=not_resources,
            conditions=tuple(self._conditions(where, given.get("Condition"))),
            principals=principals,
            not_principals=not_principals,
            index=index,
        )

    def _resources(self, where: str, given: dict[str, Any]) -> tuple[Sequence[Pattern], bool]:
        if self._kind != "trust":
            return self._patterns(where, given, "Resource", _resource_fault)
        if "Resource" in given or "NotResource" in given:
            self._fault(where, "Has prohibited field Resource: a trust policy is about its role")
        return (Pattern("*"),), False

    def _patterns(
        self,
        where: str,
        given: dict[str, Any],
        element: str,
        fault_of: Callable[[str], str | None],
        *,
        ignore_case: bool = False,
    ) -> tuple[Sequence[Pattern], bool]:
        """Return the patterns of *element* or of its negation, whichever is there, and which it was."""
        negated = f"Not{element}" in given
        if negated and element in given:
            self._fault(where, f"has both {element} and Not{element}; only one is possible")
        if not negated and element not in given:
            self._fault(where, f"Missing required field {element}")
            return (), False
        name = f"Not{element}" if negated else element
        patterns = []
        for text in self._texts(where, name, given[name]):
            fault = fault_of(text)
            if fault:
                self._fault(where, fault)
            patterns.append(
                Pattern(
                    text,
                    variables=self._variables and element == "Resource",
                    ignore_case=ignore_case or _CASELESS_RESOURCE.match(text) is not None,
                )
            )
        return tuple(patterns), negated

    def _principals(self, where: str, given: dict[str, Any]) -> tuple[Principals | None, bool]:
        negated = "NotPrincipal" in given
        name = "NotPrincipal" if negated else "Principal"
        if self._kind == "identity":
            if name in given:
                self._fault(where, f"Has prohibited field {name}: an identity policy is about its holder")
            return None, False
        if name not in given:
            self._fault(where, "Missing required field Principal")
            return None, False
        value = given[name]
        if value == "*":
            return Principals(True, {}), negated
        if not isinstance(value, dict):
            self._fault(where, f"{name} must be '*' or an object such as {{'AWS': '...'}}, not {value!r}")
            return None, negated
        named: dict[str, frozenset[str]] = {}
        for kind, identifiers in value.items():
            if kind not in _PRINCIPAL_TYPES:
                self._fault(
                    where, f"Invalid principal type {kind!r}; possible: {', '.join(_PRINCIPAL_TYPES)}"
                )
            else:
                named[kind] = frozenset(self._texts(where, f"{name}.{kind}", identifiers))
        return Principals("*" in named.get("AWS", ()), named), negated

    def _conditions(self, where: str, given: Any) -> Iterator[Condition]:
        if given is None:
            return
        if not isinstance(given, dict):
            self._fault(where, "Condition must be an object")
            return
        for operator, block in given.items():
            parsed = parse_operator(operator)
            if parsed is None:
                self._fault(where, f"Invalid Condition type : {operator}")
                continue
            if not isinstance(block, dict):
                self._fault(where, f"Condition.{operator} must be an object of keys and values")
                continue
            name, quantifier, if_exists = parsed
            for key, value in block.items():
                texts = self._texts(where, f"Condition.{operator}.{key}", value, scalars=True)
                wanted = tuple(Pattern(text, variables=self._variables) for text in texts)
                yield Condition(name, key.lower(), wanted, quantifier, if_exists)

    def _texts(self, where: str, name: str, value: Any, *, scalars: bool = False) -> list[str]:
        values = value if isinstance(value, list) else [value]
        if scalars:
            values = [
                str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
                for v in values
            ]
        if not all(isinstance(text, str) for text in values):
            self._fault(where, f"{name} must be a string or a list of strings, not {value!r}")
            return []
        if not values and not scalars:
            self._fault(where, f"{name} must not be empty")
        return values

    def _fault(self, where: str, sentence: str) -> None:
        self._faults.append(f"{where}: {sentence}."[:600])


def _action_fault(text: str) -> str | None:
    if _ACTION.fullmatch(text):
        return None
    return (
        "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.: "
        f"{text!r} is not '*' and not like 's3:GetObject'"
    )


def _resource_fault(text: str) -> str | None:
    if text.startswith(("arn:", "*", "${")) or _is_wild_arn(text):
        return None
    return f'Resource {text} must be in ARN format or "*"'


def _is_wild_arn(text: str) -> bool:
    """Whether the ``arn`` at the start is itself written with wildcards, such as ``ar?:aws:...``."""
    return bool(re.match(r"[arn*?]{1,3}:", text))
