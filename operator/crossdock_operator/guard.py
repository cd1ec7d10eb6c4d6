"""What goes wrong with one object is that object's trouble."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger()


@contextmanager
def apart(doing: str, **about: object) -> Iterator[None]:
    """Log whatever is raised, so that a loop goes on to the others.

    Objects are written by many hands: one that nobody has thought of must not end an operator that
    looks after those of everybody.

    Args:
        doing: what is tried.
        about: whom it is about.
    """
    try:
        yield
    except Exception:
        log.exception("failed", doing=doing, **about)
