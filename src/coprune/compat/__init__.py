"""Other libraries' internals, each in one module with the versions it knows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(library: str, *, below: int = logging.CRITICAL) -> Iterator[None]:
    """Without what a library logs; what becomes of it is said in one line.

    Args:
        library: the name of its log.
        below: the level from which on it speaks all the same.
    """
    log = logging.getLogger(library)
    level = log.level
    log.setLevel(below)
    try:
        yield
    finally:
        log.setLevel(level)
