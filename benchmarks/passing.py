"""Work in a passing thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def passing(work: Callable[[], T]) -> T:
    """Do work in a thread that ends with it, and so does its team of OpenMP threads.

    A second living team halves the speed of the first (iguana_server/process.py): what is loaded here leaves the
    process to the thread that is to be measured.
    """
    with ThreadPoolExecutor(1, "passing") as thread:
        return thread.submit(work).result()
