"""Where a run happens: the processor's cores, or an accelerator where the work is worth its while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from pelton.engine.errors import ArgumentError, DeviceError, ResourceError

# Numbers that all chains read for one gradient each, from which on an accelerator is taken unasked: below it a
# processor has done with a gradient before an accelerator has begun its kernels.
ACCELERATOR_WORK = 1_000_000
# Chains of one program that keep a device busy, so that more of them make it no quicker: rows of so many, and as many
# rows as go through so many numbers for one gradient each.
ROW_ON_CPU, ENOUGH_ON_CPU = 16, 2**15
ROW, ENOUGH = 32, 2**24


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


def together_on(device: Any, numbers: int) -> int:
    """Chains of one program that are worth advancing side by side on a device.

    Args:
        numbers: that one chain goes through for one gradient.

    >>> cpu = choose_devices("cpu", 1)[0]
    >>> together_on(cpu, 20_000), together_on(cpu, 100)
    (16, 336)
    """
    row, enough = (ROW_ON_CPU, ENOUGH_ON_CPU) if device.platform == "cpu" else (ROW, ENOUGH)
    return row * -(-enough // (row * max(numbers, 1)))


@contextmanager
def device_failures(device: Any, url: str | None = None) -> Iterator[None]:
    """Says in our words what a device fails with while a run is on it.

    Args:
        device: the run's first.
        url: where the run is written; None where it is not.

    Raises:
        ResourceError: the device ran out of memory.
        DeviceError: anything else, as the runtime puts it: a device that is lost or reset, a callback that raised.

    >>> with device_failures(choose_devices("cpu", 1)[0], "run.zarr"):
    ...     raise jax.errors.JaxRuntimeError("INTERNAL: gone")
    Traceback (most recent call last):
        ...
    pelton.engine.errors.DeviceError: cpu 0 failed during the run: INTERNAL: gone; what was written by then is in \
'run.zarr': pelton.resume('run.zarr', model) goes on with it
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        said = (str(error).strip() or "it gave no reason").splitlines()[0][:300]
        name = f"{device.platform} {device.id}"
        left = (
            "nothing of it is kept; with store=PATH a run is written as it goes and can be resumed"
            if url is None
            else f"what was written by then is in {url!r}: pelton.resume({url!r}, model) goes on with it"
        )
        if "RESOURCE_EXHAUSTED" in said:
            raise ResourceError(
                f"{name} ran out of memory during the run: {said}; take fewer chains, precision='float32' or a larger "
                f"device; {left}"
            ) from error
        raise DeviceError(f"{name} failed during the run: {said}; {left}") from error
