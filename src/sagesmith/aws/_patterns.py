r"""The models' regular expressions: Java's, matched against the whole value, in bounded time.

Most compile with `re`. Those with Java's ``\p{L}`` classes need `regex`, and so do those that could
backtrack without end on some input (a repetition inside a repetition, or several unbounded ones):
`regex` gives up after a time limit, `re` never does.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Final

__all__ = ["PatternTimeoutError", "full_match"]

TIME_LIMIT_S: Final = 0.1
"""Longest time one match may take. Honest values take microseconds."""

_LONG_VALUE: Final = (
    2048  # a longer value goes to `regex` whatever the pattern: two repetitions are quadratic
)
_UNBOUNDED: Final = re.compile(r"(?<!\\)(?:[*+]|\{\d+,\})")
_QUANTIFIER: Final = re.compile(r"[*+]|\{\d+(?:,\d*)?\}")
# The names of SageMaker: a dash is never in the class, so there is one way to match only.
_DASHED_NAME: Final = re.compile(r"\(-\*\[a-zA-Z0-9\]\)(?:\*|\{0,\d+\})")
# "a surrogate pair in a range" is how Java's UTF-16 writes the characters beyond U+FFFF.
_SURROGATES: Final = r"\uD800\uDC00-\uDBFF\uDFFF"


class PatternTimeoutError(Exception):
    """A match did not come to an end within the time limit: the value is hostile or the pattern is."""


def _for_python(pattern: str) -> str:
    pattern = pattern.replace(_SURROGATES, r"\U00010000-\U0010FFFF")
    pattern = pattern.replace(r"\z", r"\Z")
    pattern = re.sub(r"(\\[wds])-(?=[^\]])", r"\1\\-", pattern)  # `[\w-_]`: Java takes the dash as itself
    return re.sub(r"\$\{\d+,\d+\}", "$", pattern)  # `$` repeated means `$`


@functools.cache
def full_match(pattern: str) -> Callable[[str], bool]:
    """Return a function that says whether *pattern* matches the whole of its argument.

    The function raises :class:`PatternTimeoutError` when it cannot tell in time.
    """
    text = _for_python(pattern)
    slow: Callable[[str], bool] | None = None

    def careful(value: str) -> bool:
        nonlocal slow
        if slow is None:
            slow = _with_time_limit(text)
        return slow(value)

    if r"\p" in text or len(_UNBOUNDED.findall(text)) > 2 or _is_nested(text):
        return careful
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # "possible nested set": what Python may mean one day
            quick = re.compile(text, re.ASCII).fullmatch
    except re.error:
        return careful

    def match(value: str) -> bool:
        return quick(value) is not None if len(value) <= _LONG_VALUE else careful(value)

    return match


def _is_nested(text: str) -> bool:
    """Whether a group that repeats holds a repetition or an alternative."""
    text = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "x", _DASHED_NAME.sub("x", text))
    open_groups = [False]
    place = 0
    while place < len(text):
        found = _QUANTIFIER.match(text, place)
        if text[place] == "(":
            open_groups.append(False)
        elif text[place] == ")" and len(open_groups) > 1:
            inner = open_groups.pop()
            repeats = _QUANTIFIER.match(text, place + 1)
            if inner and repeats:
                return True
            open_groups[-1] = open_groups[-1] or inner or bool(repeats)
        elif text[place] == "|" or found:
            open_groups[-1] = True
        place = found.end() if found else place + 1
    return False


def _with_time_limit(text: str) -> Callable[[str], bool]:
    import regex

    flags = regex.VERSION0 if r"\p" in text else regex.ASCII
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            compiled = regex.compile(text, flags)
    except regex.error:
        # A pattern that neither engine understands must not lock users out of an operation.
        return lambda _value: True

    def match(value: str) -> bool:
        try:
            return compiled.fullmatch(value, timeout=TIME_LIMIT_S) is not None
        except TimeoutError as error:
            raise PatternTimeoutError(text) from error

    return match
