"""What a benchmark's figures depend on (machine, versions, commit), and the file that keeps them."""

import contextlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pelton.engine.errors import OutputError
from pelton.engine.results import versions as engine_versions

CHECKOUT = Path(__file__).resolve().parents[1]


def cores() -> int:
    """Cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """The processor's name, its cores, GiB of memory, the system, JAX's device, and the load before the run.

    >>> sorted(machine())
    ['cores', 'cpu', 'device', 'load', 'memory_gib', 'system']
    """
    import jax

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line for line in info.read_text().splitlines() if line.startswith("model name"))
        cpu = next((line.split(":", 1)[1].strip() for line in lines), cpu)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(jax.devices()[0].device_kind),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def versions() -> dict[str, str]:
    """Versions of the engine's packages, and of SciPy, the rival's.

    >>> "scipy" in versions()
    True
    """
    return engine_versions() | {"scipy": version("scipy")}


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed.

    >>> installed(["no-such-package"])
    {}
    """
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str | None:
    """The checkout's commit, with "+" where files differ from it; None outside a checkout."""
    if not (CHECKOUT / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(CHECKOUT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Adds a record to a file of JSON lines, written aside and then renamed: it is whole at every moment.

    Args:
        path: the file; it and its folder are made where absent.
        record: numbers, texts, lists and mappings; no NaN.

    Raises:
        OutputError: the file cannot be written; what stood there is untouched.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "results" / "runs.jsonl"
    >>> append(path, {"run": 1}); append(path, {"run": 2})
    >>> read(path)
    [{'run': 1}, {'run': 2}]
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if path.exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        with aside.open("w") as file:
            file.write(before + line)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}; choose another file") from error


def stored(path: Path) -> list[dict[str, Any]]:
    """The records of a file that need not be there."""
    return read(path) if path.exists() else []


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines, oldest first."""
    return [json.loads(line) for line in path.read_text().splitlines() if line]
