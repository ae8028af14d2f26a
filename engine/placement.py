"""What a run may use of the machine."""

import os


def cores() -> int:
    """Processor cores that this process may run on.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
