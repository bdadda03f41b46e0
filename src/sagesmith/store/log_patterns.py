"""Filter patterns of CloudWatch Logs: terms, JSON conditions, space-delimited fields.

- ``ERROR "disk full" -retry``: every term is in the text, and none of those with a minus. ``?a ?b``: any of them.
  ``%expression%``: a regular expression is found in it.
- ``{ $.level = "ERR*" && ($.code >= 500 || $.user.name NOT EXISTS) }``: the text is JSON, and this holds of it.
- ``[ip, user, ..., status = 4*, bytes > 1000]``: the text's fields, divided by spaces; ``"..."`` and ``[...]``
  hold one together.

Source: Amazon CloudWatch Logs user guide, "Filter pattern syntax".
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import orjson

from sagesmith.errors import AwsError

__all__ = ["Matcher", "compile_pattern"]

Matcher: TypeAlias = Callable[[str], bool]
_Test: TypeAlias = Callable[[Any], bool]

_LONGEST: Final = 1024
_REGEX_S: Final = 0.5
_TERM: Final = re.compile(r'\s*([?-]?)(?:"((?:[^"\\]|\\.)*)"|%((?:[^%\\]|\\.)+)%|([^\s"]+))')
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<punctuation>&&|\|\||\(|\)|,|\.\.\.|!=|<=|>=|=|<|>)
      | "(?P<string>(?:[^"\\]|\\.)*)"
      | %(?P<regex>(?:[^%\\]|\\.)+)%
      | (?P<word>[^\s()=!<>&|,"]+)
    )""",
    re.VERBOSE,
)
_STEP: Final = re.compile(r"\.([A-Za-z0-9_\-]+)|\[(\d+|\*)\]|\['([^']+)'\]")
_FIELD: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|\[([^\]]*)\]|(\S+)')
_ABSENT: Final = object()


def compile_pattern(pattern: str) -> Matcher | None:
    """Return what tells whether a text matches *pattern*; None if everything does.

    Raises:
        AwsError: `InvalidParameterException`, the pattern makes no sense.
    """
    text = pattern.strip()
    if not text:
        return None
    if len(text) > _LONGEST:
        raise _invalid(pattern, f"it is longer than {_LONGEST} characters")
    if text.startswith("{") and text.endswith("}"):
        return _json_matcher(text[1:-1], pattern)
    if text.startswith("[") and text.endswith("]"):
        return _fields_matcher(text[1:-1], pattern)
    return _terms_matcher(text, pattern)


def _invalid(pattern: str, why: str) -> AwsError:
    return AwsError("InvalidParameterException", f"Invalid filter pattern {pattern!r}: {why}.")


# ---- terms ----


def _terms_matcher(text: str, pattern: str) -> Matcher:
    groups: dict[str, list[Matcher]] = {"": [], "?": [], "-": []}
    place = 0
    while place < len(text):
        found = _TERM.match(text, place)
        if found is None:
            raise _invalid(pattern, f"it cannot be read from {text[place:]!r} on")
        sign, quoted, expression, word = found.groups()
        if expression is not None:
            groups[sign].append(_regex(expression, pattern))
        else:
            groups[sign].append(_contains(_unescaped(quoted) if quoted is not None else word))
        place = found.end()
    required, any_of, excluded = groups[""], groups["?"], groups["-"]

    def matches(event: str) -> bool:
        if any(term(event) for term in excluded):
            return False
        if required:
            return all(term(event) for term in required)
        return not any_of or any(term(event) for term in any_of)

    return matches


def _contains(term: str) -> Matcher:
    return lambda event: term in event


def _regex(expression: str, pattern: str) -> Matcher:
    import regex  # unlike `re` it can be told to give up

    try:
        compiled = regex.compile(expression)
    except regex.error as error:
        raise _invalid(pattern, f"the regular expression {expression!r} is wrong ({error})") from error

    def matches(event: str) -> bool:
        try:
            return compiled.search(event, timeout=_REGEX_S) is not None
        except TimeoutError:
            raise _invalid(pattern, f"the regular expression {expression!r} takes too long") from None

    return matches


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


# ---- conditions, as both other kinds have them ----


class _Tokens:
    """The tokens of a condition, one after the other."""

    def __init__(self, text: str, pattern: str) -> None:
        self.pattern = pattern
        self._tokens: list[tuple[str, str]] = []
        self._next = 0
        place = 0
        text = text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None or found.lastgroup is None:
                raise self.fault(f"it cannot be read from {text[place:].strip()!r} on")
            value = found.group(found.lastgroup)
            self._tokens.append(
                (found.lastgroup, _unescaped(value) if found.lastgroup == "string" else value)
            )
            place = found.end()

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def take(self) -> tuple[str, str]:
        token = self.peek()
        self._next += 1
        return token

    def take_if(self, *values: str) -> bool:
        kind, value = self.peek()
        if kind != "string" and value.upper() in values:
            self._next += 1
            return True
        return False

    def fault(self, why: str) -> AwsError:
        return _invalid(self.pattern, why)


def _either(tokens: _Tokens, primary: Callable[[_Tokens], _Test]) -> _Test:
    tests = [_both(tokens, primary)]
    while tokens.take_if("||"):
        tests.append(_both(tokens, primary))
    return tests[0] if len(tests) == 1 else lambda subject: any(test(subject) for test in tests)


def _both(tokens: _Tokens, primary: Callable[[_Tokens], _Test]) -> _Test:
    tests = [_one(tokens, primary)]
    while tokens.take_if("&&"):
        tests.append(_one(tokens, primary))
    return tests[0] if len(tests) == 1 else lambda subject: all(test(subject) for test in tests)


def _one(tokens: _Tokens, primary: Callable[[_Tokens], _Test]) -> _Test:
    if not tokens.take_if("("):
        return primary(tokens)
    inner = _either(tokens, primary)
    if not tokens.take_if(")"):
        raise tokens.fault("a closing parenthesis is missing")
    return inner


def _comparison(tokens: _Tokens) -> _Test:
    """Read an operator and a value; return the test of a JSON value or a field (a string)."""
    kind, sign = tokens.take()
    if kind != "punctuation" or sign not in ("=", "!=", "<", "<=", ">", ">="):
        raise tokens.fault(f"{sign!r} stands where an operator must")
    kind, value = tokens.take()
    if kind not in ("string", "word", "regex"):
        raise tokens.fault(f"{value!r} stands where a value must")
    number = _number(value) if kind == "word" else None
    if sign in ("=", "!="):
        equal = _equals(kind, value, number, tokens.pattern)
        return equal if sign == "=" else lambda found: found is not _ABSENT and not equal(found)
    if number is None:
        raise tokens.fault(f"{sign} compares numbers, and {value!r} is none")
    limit = number
    compare: Callable[[float, float], bool] = {
        "<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__
    }[sign]  # fmt: skip

    def ordered(found: Any) -> bool:
        measured = _number(found)
        return measured is not None and compare(measured, limit)

    return ordered


def _equals(kind: str, value: str, number: float | None, pattern: str) -> _Test:
    if kind == "regex":
        search = _regex(value, pattern)
        return lambda found: isinstance(found, str) and search(found)
    if number is not None:
        return lambda found: found == value or _number(found) == number
    first, *others = value.split("*")
    if not others:
        return lambda found: found == value
    *middle, last = others
    return lambda found: isinstance(found, str) and _fits(found, first, middle, last)


def _fits(text: str, first: str, middle: Sequence[str], last: str) -> bool:
    """Return whether *text* is *first*, then the *middle* ones in order, then *last*, with anything between.

    Takes linear time, which ``first.*middle.*last`` as a regular expression does not.
    """
    if not text.startswith(first):
        return False
    place = len(first)
    for part in middle:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return len(text) - len(last) >= place and text.endswith(last)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


# ---- JSON ----


def _json_matcher(text: str, pattern: str) -> Matcher:
    tokens = _Tokens(text, pattern)
    test = _either(tokens, _json_condition)
    if tokens.peek()[0] != "end":
        raise tokens.fault(f"{tokens.peek()[1]!r} is too much")

    def matches(event: str) -> bool:
        try:
            document = orjson.loads(event)
        except orjson.JSONDecodeError:
            return False
        return isinstance(document, (dict, list)) and test(document)

    return matches


def _json_condition(tokens: _Tokens) -> _Test:
    kind, selector = tokens.take()
    if kind != "word" or not selector.startswith("$"):
        raise tokens.fault(f"{selector!r} stands where a property such as $.name must")
    steps = _STEP.findall(selector[1:])
    if "".join(found.group(0) for found in _STEP.finditer(selector[1:])) != selector[1:]:
        raise tokens.fault(f"{selector!r} is not a property such as $.name or $.list[0]")
    path = [name or quoted or index for name, index, quoted in steps]

    def some(test: _Test) -> _Test:
        return lambda document: any(test(value) for value in _select(document, path))

    if tokens.take_if("EXISTS"):
        return some(lambda value: value is not _ABSENT)
    if tokens.take_if("NOT"):
        if not tokens.take_if("EXISTS"):
            raise tokens.fault("EXISTS must follow NOT")
        return some(lambda value: value is _ABSENT)
    if tokens.take_if("IS"):
        for word, constant in (("NULL", None), ("TRUE", True), ("FALSE", False)):
            if tokens.take_if(word):
                return some(functools.partial(operator.is_, constant))
        raise tokens.fault("NULL, TRUE or FALSE must follow IS")
    return some(_comparison(tokens))


def _select(value: Any, path: Sequence[str]) -> list[Any]:
    """Return the values at *path*; several behind ``[*]``."""
    if not path:
        return [value]
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        if step == "*":
            return [found for item in value for found in _select(item, rest)]
        if step.isdigit() and int(step) < len(value):
            return _select(value[int(step)], rest)
    elif isinstance(value, dict) and step in value:
        return _select(value[step], rest)
    return [_ABSENT]


# ---- space-delimited fields ----


def _fields_matcher(text: str, pattern: str) -> Matcher:
    columns: list[tuple[str, _Test | None]] = []
    for part in _columns(text):
        tokens = _Tokens(part, pattern)
        kind, name = tokens.peek()
        if kind == "end":
            raise _invalid(pattern, "a field without a name is in it")
        if tokens.peek() == ("punctuation", "...") or part.strip() == "...":
            columns.append(("...", None))
            continue
        name = part.strip().lstrip("( ").split("=")[0].split("<")[0].split(">")[0].split("!")[0].strip()
        if part.strip() == name:
            columns.append((name, None))
            continue
        columns.append((name, _either(tokens, _field_condition)))
        if tokens.peek()[0] != "end":
            raise tokens.fault(f"{tokens.peek()[1]!r} is too much")
    gaps = [number for number, (name, _) in enumerate(columns) if name == "..."]
    if len(gaps) > 1:
        raise _invalid(pattern, "... may stand in it once")

    def matches(event: str) -> bool:
        fields = [quoted or held or plain for quoted, held, plain in _FIELD.findall(event)]
        wanted = columns
        if gaps:
            missing = len(fields) - (len(columns) - 1)
            if missing < 0:
                return False
            gap = gaps[0]
            wanted = [*columns[:gap], *[("", None)] * missing, *columns[gap + 1 :]]
        if len(fields) != len(wanted):
            return False
        return all(test is None or test(field) for (_, test), field in zip(wanted, fields, strict=True))

    return matches


def _columns(text: str) -> list[str]:
    """Return the parts of *text* between commas, those in quotes left alone."""
    return re.split(r',(?=(?:[^"]*"[^"]*")*[^"]*$)', text)


def _field_condition(tokens: _Tokens) -> _Test:
    kind, name = tokens.take()
    if kind != "word":
        raise tokens.fault(f"{name!r} stands where a field's name must")
    return _comparison(tokens)
