"""How much memory is free, and what is refused because it would need more. Knows nothing of torch."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

from coprune.errors import UserError, setting

_GROUP = Path("/sys/fs/cgroup")


def free_bytes() -> int | None:
    """Memory that this process may still take; None where the system does not say."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))))
    with contextlib.suppress(OSError, ValueError):  # a container's own limit
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(limit - used)
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if not found:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(found, default=None)


def check_shape(shape: Sequence[int], *, samples: int = 1) -> None:
    """Refuse noise of a shape that is larger than the memory.

    Args:
        shape: of one sample, as ``--input-shape`` says it.
        samples: how many.
    """
    check_free(4 * samples * math.prod(shape), what=setting("input_shape", tuple(map(str, shape))))


def check_free(need: int, *, what: str, free: int | None = None, instead: int | None = None) -> None:
    """Refuse what would need more memory than there is, before work starts.

    Args:
        need: bytes.
        what: how a message names what was asked for.
        free: bytes; those of the CPU when not given.
        instead: what could be meant, where that is known.

    Raises:
        UserError: it does not fit.
    """
    free = free_bytes() if free is None else free
    if free is None or need <= free:
        return
    hint = f"did you mean {instead}?" if instead else "give less"
    raise UserError(
        f"{what} takes about {need / 1e9:,.1f} GB of memory, and {free / 1e9:,.1f} GB are free; {hint}"
    )
