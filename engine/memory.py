"""What a run will hold in memory, worked out before it begins, and a refusal with advice where there is not as much."""

import functools
from pathlib import Path
from typing import Any

import jax

from pelton.engine.errors import ResourceError
from pelton.engine.posterior import Posterior

# Copies of positions and of variables at the worst moment: while chains are joined, and while the tree is judged.
POSITION_COPIES, VARIABLE_COPIES = 2, 3
# Share of what is free that a run may take.
SHARE = 0.9
_CGROUP = Path("/sys/fs/cgroup")


def sized(bytes_: float) -> str:
    """Bytes in the unit that suits them.

    >>> sized(1536.0), sized(3e12)
    ('1.5 KiB', '2.7 TiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if bytes_ < 1024:
            return f"{bytes_:.1f} {unit}"
        bytes_ /= 1024
    return f"{bytes_:.1f} TiB"


def free_memory() -> float:
    """Bytes that this process may still take of the machine's memory, infinite where that cannot be told."""
    found = [float("inf")]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        rows = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in rows:
            found.append(1024.0 * int(rows["MemAvailable"].split()[0]))
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        found.append(float(text) - float(used.read_text()))
    return min(found)


def draw_bytes(posterior: Posterior, itemsize: int) -> tuple[int, int]:
    """Bytes of one draw of one chain: its position with the statistics, and its named variables.

    >>> import pelton
    >>> posterior = pelton.PartialPooling([9, 22, 31], [138, 72, 157]).posterior()
    >>> draw_bytes(posterior, 8)[0]
    80
    """
    lanes = posterior.batch or 1
    position = jax.ShapeDtypeStruct((posterior.dimension,), jax.numpy.result_type(float))
    data = jax.eval_shape(lambda data: jax.tree.map(jax.numpy.asarray, data), posterior.data)
    if posterior.batch is not None:
        data = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
    values = jax.eval_shape(posterior.constrain, position, data)
    variables = sum(leaf.size for leaf in jax.tree.leaves(values))
    # Info has eight fields.
    return lanes * (posterior.dimension + 8) * itemsize, lanes * variables * itemsize


def check_host(posterior: Posterior, chains: int, warmup: int, draws: int, itemsize: int) -> None:
    """Refuses a run whose draws will not fit into the machine's memory.

    Raises:
        ResourceError: with the estimate, what is free, and how many draws would fit.
    """
    position, variables = draw_bytes(posterior, itemsize)
    each = chains * (POSITION_COPIES * position + VARIABLE_COPIES * variables)
    need, free = draws * each + warmup * chains * POSITION_COPIES * position, SHARE * free_memory()
    if need > free:
        fit = int(max(free - warmup * chains * POSITION_COPIES * position, 0) // each)
        raise ResourceError(
            f"{chains} chains of {draws} draws of {variables // itemsize} numbers want about {sized(need)} of memory "
            f"and {sized(free)} are free: take at most {fit} draws a chain, fewer chains, or precision='float32'"
        )


def check_device(programs: list[Any], devices: list[Any], chains: int) -> None:
    """Refuses programs that will not fit into their device's memory.

    Args:
        programs: compiled, one after the other run on a device each.
        devices: of each.
        chains: of each program, for the advice.

    Raises:
        ResourceError: with the largest program's need, what the device has free, and what to do.
    """
    for program, device in zip(programs, devices, strict=True):
        stats = device.memory_stats() if device.platform != "cpu" else None
        free = SHARE * (stats["bytes_limit"] - stats["bytes_in_use"] if stats else free_memory())
        need = _needs(program)
        if need > free:
            raise ResourceError(
                f"{chains} chains in one program want {sized(need)} of the memory of {device} and {sized(free)} are "
                "free: take fewer chains, chain_method='threads', or precision='float32'"
            )


@functools.lru_cache(maxsize=64)
def _needs(program: Any) -> int:
    """Bytes of a compiled program, asked for once: the analysis takes longer than many a run."""
    found = program.memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes + found.argument_size_in_bytes
