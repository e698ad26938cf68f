"""Work in threads, in order and with bounded memory. Pillow decodes, resizes and encodes without Python's lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Iterator[Result]:
    """``function`` of each item, in their order, computed by ``workers`` threads.

    No more than ``ahead`` items are taken before their turn. What ``function`` raises is raised where its result would
    stand. When the iterator is closed, or raises, nothing is begun any more and the threads have ended.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
