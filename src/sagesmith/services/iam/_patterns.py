"""Text patterns of policies: ``*`` and ``?`` wildcards and ``${...}`` variables.

A pattern without variables is compiled once. One with variables is put together for each request, since the
value of ``${aws:username}`` is the caller's; a wildcard inside such a value stands for itself only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import groupby
from typing import Final, TypeAlias

__all__ = ["Lookup", "Pattern", "compile_glob"]

Lookup: TypeAlias = Callable[[str], tuple[str, ...] | None]
"""Returns the values of a context key (given in lower case), or None if the request has no such key."""

_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")
_DEFAULT: Final = re.compile(r"\s*([^,\s]+)\s*(?:,\s*'([^']*)')?\s*$")
_LITERALS: Final = frozenset("*?$")


def _tokens(glob: str) -> list[str]:
    """Return *glob* as a list of regular expressions of one character each; `*` stays as it is."""
    return ["*" if c == "*" else "." if c == "?" else re.escape(c) for c in glob]


def _assemble(tokens: list[str]) -> str:
    """Return one regular expression that takes linear time: what follows a `*` is sought once, atomically."""
    if "*" not in tokens:
        return "".join(tokens)
    literals = ["".join(group) for star, group in groupby(tokens, "*".__eq__) if not star]
    head = "" if tokens[0] == "*" or not literals else literals.pop(0)
    tail = "" if tokens[-1] == "*" or not literals else literals.pop()
    middle = "".join(f"(?>.*?{literal})" for literal in literals)
    return f"{head}{middle}.*{tail}"


@lru_cache(maxsize=4096)
def compile_glob(glob: str, ignore_case: bool = False) -> re.Pattern[str]:
    """Return *glob* as a regular expression for `fullmatch`."""
    return re.compile(_assemble(_tokens(glob)), re.DOTALL | (re.IGNORECASE if ignore_case else 0))


@lru_cache(maxsize=4096)
def _compile(expression: str, ignore_case: bool) -> re.Pattern[str]:
    return re.compile(expression, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


class Pattern:
    """One text of a policy, ready to be matched.

    Args:
        text: the text as the policy has it.
        variables: whether ``${...}`` means a variable (policies of version 2012-10-17) or itself.
        wildcards: whether ``*`` and ``?`` are wildcards.
        ignore_case: whether upper and lower case are the same.
    """

    __slots__ = ("_exact", "_glob", "_ignore_case", "_parts", "_wildcards", "text")

    def __init__(
        self, text: str, *, variables: bool = True, wildcards: bool = True, ignore_case: bool = False
    ) -> None:
        self.text = text
        self._ignore_case = ignore_case
        self._wildcards = wildcards
        self._parts = _VARIABLE.split(text) if variables and "${" in text else None
        self._exact: str | None = None
        self._glob: re.Pattern[str] | None = None
        if self._parts is None:
            if wildcards and ("*" in text or "?" in text):
                self._glob = compile_glob(text, ignore_case)
            else:
                self._exact = text.lower() if ignore_case else text

    def matches(self, value: str, lookup: Lookup) -> bool:
        """Whether *value* is what this text means for the request that *lookup* knows."""
        if self._exact is not None:
            return self._exact == (value.lower() if self._ignore_case else value)
        if self._glob is not None:
            return self._glob.fullmatch(value) is not None
        expression = self._expression(lookup)
        return expression is not None and _compile(expression, self._ignore_case).fullmatch(value) is not None

    def resolve(self, lookup: Lookup) -> str | None:
        """Return the text with its variables filled in, or None if one has no single value."""
        if self._parts is None:
            return self.text
        filled = []
        for index, part in enumerate(self._parts):
            value = part if index % 2 == 0 else _value(part, lookup)
            if value is None:
                return None
            filled.append(value)
        return "".join(filled)

    def _expression(self, lookup: Lookup) -> str | None:
        """Return the regular expression of a pattern with variables; None if one has no single value."""
        tokens: list[str] = []
        for index, part in enumerate(self._parts or ()):
            if index % 2 == 0 and self._wildcards:
                tokens += _tokens(part)
                continue
            value = part if index % 2 == 0 else _value(part, lookup)
            if value is None:
                return None
            tokens += map(re.escape, value)
        return _assemble(tokens)


def _value(variable: str, lookup: Lookup) -> str | None:
    """Return the value of ``${variable}``: a literal, the context's, its default, or None."""
    if variable in _LITERALS:
        return variable
    match = _DEFAULT.match(variable)
    if match is None:
        return None
    values = lookup(match[1].lower())
    if values is not None and len(values) == 1:
        return values[0]
    return match[2]
