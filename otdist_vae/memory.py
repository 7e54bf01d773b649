"""Whether something fits in memory, asked before it is tried."""

from __future__ import annotations

import os


def available() -> int:
    """Bytes that can be had without swapping; a very large number where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 2**62


def require(needed: int, what: str) -> None:
    """Raises MemoryError naming `what` if it needs more bytes than there are."""
    free = available()
    if needed > free:
        raise MemoryError(f"{what} needs {needed / 2**30:.3g} GiB of memory; {free / 2**30:.3g} GiB are available")
