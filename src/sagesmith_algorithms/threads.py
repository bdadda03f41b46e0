"""Blocks of work side by side, each with BLAS on one thread.

BLAS's own threads wait for each other after each of many small products, and where the machine is busy they wait for
the one that is not running: ten times as long. Blocks that know nothing of each other do not wait.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sagesmith_toolkit.environment import cpu_count

__all__ = ["blas_on_one_thread", "in_order", "side_by_side"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_pools: Final[dict[tuple[int, int], ThreadPoolExecutor]] = {}
_controllers: Final[list[Any]] = []
_inside: Final = threading.local()


def side_by_side(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Return *function* of each of *items*, in their order, computed on as many threads as this instance may use.

    What *function* itself would do side by side it does one after the other: all threads are busy already.
    """
    n_threads = cpu_count()
    if n_threads < 2 or len(items) < 2 or getattr(_inside, "a_block", False):
        return [function(item) for item in items]
    place = os.getpid(), n_threads  # threads do not survive a fork
    if place not in _pools:
        _pools[place] = ThreadPoolExecutor(n_threads, "block", initializer=_mark)
    with blas_on_one_thread():
        return list(_pools[place].map(function, items))


def in_order(
    function: Callable[[_Item], _Result], items: Iterable[_Item], n_threads: int
) -> Iterator[_Result]:
    """Yield *function* of each of *items*, in their order, computed on *n_threads*; one waits while these work."""
    if n_threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(n_threads, "item") as pool:
        begun: deque[Future[_Result]] = deque()
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) > n_threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _mark() -> None:
    _inside.a_block = True


@contextmanager
def blas_on_one_thread() -> Iterator[None]:
    """Within, products use the thread that asks for them alone."""
    if not _controllers:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        _controllers.append(ThreadpoolController())  # looking for the libraries takes a while: once
    with _controllers[0].limit(limits=1, user_api="blas"):
        yield
