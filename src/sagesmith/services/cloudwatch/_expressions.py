"""Metric math: expressions over the series of one GetMetricData request.

What is understood: numbers, ids of other queries, ``+ - * / ^`` and parentheses, ``METRICS()``, ``SUM``, ``AVG``,
``MIN``, ``MAX`` (of one series: over time; of several: across them), ``ABS``, ``CEIL``, ``FLOOR`` and
``FILL(series, number)``. The rest of CloudWatch's language is refused with a sentence that names it.

A series maps times to values; an operation on two keeps the times that both have.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from sagesmith.errors import AwsError

__all__ = ["TimeSeries", "evaluate", "names_in"]

TimeSeries: TypeAlias = dict[float, float]
_Value: TypeAlias = float | TimeSeries | list[TimeSeries]

_OPERATORS: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitXor: math.pow,
}
_EACH: Final[Mapping[str, Callable[[float], float]]] = {
    "ABS": abs,
    "CEIL": lambda value: float(math.ceil(value)),
    "FLOOR": lambda value: float(math.floor(value)),
}
_MERGE: Final[Mapping[str, Callable[[list[float]], float]]] = {
    "SUM": math.fsum,
    "AVG": lambda values: math.fsum(values) / len(values),
    "MIN": min,
    "MAX": max,
}


def _parsed(expression: str) -> ast.expr:
    try:
        return ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _fault(expression, "it cannot be read") from error


def _fault(expression: str, why: str) -> AwsError:
    return AwsError("ValidationError", f"Error in expression {expression!r}: {why}.")


def names_in(expression: str) -> set[str]:
    """Return the ids of other queries that *expression* needs; `METRICS` stands for all of them."""
    tree = _parsed(expression)
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - _EACH.keys() - _MERGE.keys()


def evaluate(expression: str, series: Mapping[str, TimeSeries], metrics: Iterable[str]) -> TimeSeries:
    """Return the series that *expression* makes of *series*, by id; *metrics* are the ids METRICS() means.

    Raises:
        AwsError: `ValidationError`, the expression makes no sense or is more than we understand.
    """
    try:
        result = _Evaluation(expression, series, [series[name] for name in metrics]).value(
            _parsed(expression)
        )
    except (RecursionError, OverflowError) as error:
        raise _fault(expression, "it is too deep, or has too great a number") from error
    if isinstance(result, list):
        raise _fault(expression, "it gives several series; take SUM, AVG, MIN or MAX of them")
    if isinstance(result, dict):
        return result
    times = sorted({time for one in series.values() for time in one})
    return dict.fromkeys(times, result)


class _Evaluation:
    def __init__(self, expression: str, series: Mapping[str, TimeSeries], metrics: list[TimeSeries]) -> None:
        self._expression = expression
        self._series = series
        self._metrics = metrics

    def value(self, node: ast.expr) -> _Value:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return float(number)
            case ast.Name(id=name):
                if name not in self._series:
                    raise self._fault(f"there is no query with the id {name!r}")
                return self._series[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._each(operator.neg, self.value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return self._both(_OPERATORS[type(op)], self.value(left), self.value(right))
            case ast.List(elts=items):
                return [self._one(self.value(item)) for item in items]
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._call(name.upper(), arguments)
            case _:
                raise self._fault(f"{ast.unparse(node)!r} is not supported")

    def _call(self, name: str, arguments: list[ast.expr]) -> _Value:
        if name == "METRICS" and not arguments:
            return self._metrics
        values = [self.value(argument) for argument in arguments]
        if name in _EACH and len(values) == 1:
            return self._each(_EACH[name], values[0])
        if name in _MERGE and len(values) == 1:
            return self._merged(_MERGE[name], values[0])
        if name == "FILL" and len(values) == 2 and isinstance(values[1], float):
            times = {time for one in self._series.values() for time in one}
            return {**dict.fromkeys(times, values[1]), **self._one(values[0])}
        raise self._fault(f"the function {name} is not supported in this form")

    def _merged(self, merge: Callable[[list[float]], float], value: _Value) -> _Value:
        if isinstance(value, list):
            times = {time for one in value for time in one}
            return {time: merge([one[time] for one in value if time in one]) for time in sorted(times)}
        values = self._one(value)
        return merge(list(values.values())) if values else {}

    def _each(self, function: Callable[[float], float], value: _Value) -> _Value:
        if isinstance(value, list):
            return [{time: function(item) for time, item in one.items()} for one in value]
        if isinstance(value, dict):
            return {time: function(item) for time, item in value.items()}
        return function(value)

    def _both(self, function: Callable[[float, float], float], left: _Value, right: _Value) -> _Value:
        if isinstance(left, float) and isinstance(right, float):
            result = _finite(function, left, right)
            if result is None:
                raise self._fault("it divides by zero")
            return result
        if isinstance(left, list):
            return [self._one(self._both(function, one, right)) for one in left]
        if isinstance(right, list):
            return [self._one(self._both(function, left, one)) for one in right]
        times = left.keys() if isinstance(left, dict) else right.keys() if isinstance(right, dict) else ()
        found = {
            time: _finite(
                function,
                left[time] if isinstance(left, dict) else left,
                right[time] if isinstance(right, dict) else right,
            )
            for time in times
            if not isinstance(right, dict) or time in right
        }
        return {time: item for time, item in found.items() if item is not None}

    def _one(self, value: _Value) -> TimeSeries:
        if not isinstance(value, dict):
            raise self._fault("a single series is wanted where there is none")
        return value

    def _fault(self, why: str) -> AwsError:
        return _fault(self._expression, why)


def _finite(function: Callable[[float, float], float], left: float, right: float) -> float | None:
    """Return the result, or None where there is none: a point that cannot be computed is left out."""
    try:
        result = function(left, right)
    except (ArithmeticError, ValueError):
        return None
    return result if math.isfinite(result) else None
