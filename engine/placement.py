"""Where a run happens: the processor's cores, or an accelerator where the work is worth its while."""

import os
from typing import Any

import jax

from pelton.engine.errors import ArgumentError

# Numbers that all chains read for one gradient each, from which on an accelerator is taken unasked: below it a
# processor has done with a gradient before an accelerator has begun its kernels.
ACCELERATOR_WORK = 1_000_000


def cores() -> int:
    """Processor cores that this process may run on.

    >>> cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_devices(device: str | None, work: int) -> list[Any]:
    """The local devices of a kind: one or more accelerators, or the processor.

    Args:
        device: "cpu", "gpu" or "tpu"; None takes JAX's default kind where the work is large enough, else the CPU.
        work: numbers that all chains read for one gradient each.

    Raises:
        ArgumentError: there is no device of that kind.

    >>> [found.platform for found in choose_devices("cpu", 1)]
    ['cpu']
    """
    kind = device
    if kind is None:
        kind = jax.default_backend() if work >= ACCELERATOR_WORK else "cpu"
    if kind not in ("cpu", "gpu", "tpu") and device is not None:
        raise ArgumentError(f"device is 'cpu', 'gpu', 'tpu' or None (by the model's size), not {device!r}")
    try:
        return jax.local_devices(backend=kind)
    except RuntimeError:
        raise ArgumentError(
            f"there is no {kind} here: JAX knows {', '.join(sorted({d.platform for d in jax.local_devices()}))}; "
            "install pelton[cuda] for NVIDIA GPUs, or leave device out"
        ) from None
