"""`pelton doctor`: what this machine offers a run, and whether it computes."""

import os
import platform
import sys
from pathlib import Path
from typing import Any

import typer

from pelton.cli import show

HELP = """Say what a run will use on this machine: devices, precision, versions, cache, memory and cores.

Every device compiles and runs a small program in float32 and float64.

Examples:

  pelton doctor

  pelton doctor --json > machine.json

Exit status: 0 every device computes; 1 one does not.
"""
VERSIONS = (
    "pelton", "jax", "jaxlib", "numpyro", "blackjax", "arviz", "xarray", "numpy", "scipy", "pandas", "zarr",
    "h5netcdf", "typer", "pymc",
)  # fmt: skip
FAILED = 1


def doctor(
    as_json: show.Json = False,
) -> None:
    # The help text is given where the command is registered.
    found = examine()
    if as_json:
        show.machine(found)
    else:
        _print(found)
    if not found["ok"]:
        raise typer.Exit(FAILED)


def examine() -> dict[str, Any]:
    """What there is: python, versions, devices, cache, memory and cores."""
    from pelton.engine.memory import free_memory

    devices, trouble = _devices()
    return {
        "ok": not trouble and all(not device["errors"] for device in devices),
        "trouble": trouble,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": _versions(),
        "devices": devices,
        "cache": _cache(),
        "memory": {"free_bytes": int(min(free_memory(), float(sys.maxsize)))},
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "environment": {name: os.environ[name] for name in _SETTINGS if name in os.environ},
    }


# What of the environment changes where and how a run computes.
_SETTINGS = ("PELTON_CACHE_DIR", "JAX_PLATFORMS", "JAX_ENABLE_X64", "XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def _versions() -> dict[str, str | None]:
    from importlib.metadata import PackageNotFoundError, version

    import pelton

    found: dict[str, str | None] = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    # A checkout on the path is not installed.
    return found | {"pelton": pelton.__version__}


def _devices() -> tuple[list[dict[str, Any]], str]:
    """Each device with the default precision there, what failed on it, and why none could be asked."""
    import jax

    from pelton.engine.precision import choose_precision

    try:
        present = [device for kind in _platforms() for device in jax.devices(kind)]
    except RuntimeError as error:
        return [], str(error).splitlines()[0]
    found = []
    for device in present:
        stats = device.memory_stats() if device.platform != "cpu" else None
        found.append(
            {
                "name": f"{device.platform}:{device.id}",
                "kind": device.device_kind,
                "precision": choose_precision(None, device.platform),
                "memory_bytes": None if not stats else stats.get("bytes_limit"),
                "errors": [trouble for double in (False, True) if (trouble := _computes(device, double))],
            }
        )
    return found, ""


def _platforms() -> list[str]:
    """The default platform and the CPU, which is always there."""
    import jax

    default = jax.default_backend()
    return [default] if default == "cpu" else [default, "cpu"]


def _computes(device: Any, double: bool) -> str:
    """Empty where the device sums the numbers below 1000 rightly, else what went wrong."""
    import jax
    import jax.numpy as jnp

    from pelton.engine.precision import using

    name = "float64" if double else "float32"
    try:
        with using(name), jax.default_device(device):
            total = float(jax.jit(jnp.sum)(jnp.arange(1000, dtype=name)))
    except Exception as error:  # whatever a broken driver raises is the finding
        return f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return "" if total == 499_500 else f"{name}: the sum of 0..999 came out as {total}"


def _cache() -> dict[str, Any]:
    """Where compiled programs are kept, how many and how large."""
    from pelton.engine.compilation import cache_folder

    if os.environ.get("PELTON_CACHE_DIR") == "":
        return {"folder": None, "files": 0, "bytes": 0, "writable": False}
    folder = cache_folder()
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    size = 0
    for path in files:
        try:
            size += path.stat().st_size
        except OSError:
            # Another process has just cleared it away.
            continue
    return {"folder": str(folder), "files": len(files), "bytes": size, "writable": os.access(existing, os.W_OK)}


def _print(found: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table

    from pelton.engine.memory import sized

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_header=False)
    table.add_column("", style="dim", no_wrap=True)
    table.add_column("", overflow="fold")
    table.add_row("pelton", f"{found['versions']['pelton']} on Python {found['python']}, {found['platform']}")
    for device in found["devices"]:
        memory = "" if device["memory_bytes"] is None else f", {sized(device['memory_bytes'])}"
        works = "; ".join(device["errors"]) or f"computes; runs in {device['precision']} unless told otherwise"
        table.add_row(device["name"], f"{device['kind']}{memory}: {works}")
    table.add_row("cores", str(found["cores"]))
    table.add_row("free memory", sized(found["memory"]["free_bytes"]))
    cache = found["cache"]
    if cache["folder"] is None:
        where = 'off (PELTON_CACHE_DIR="")'
    else:
        state = "" if cache["writable"] else "; NOT WRITABLE: every process compiles anew; set PELTON_CACHE_DIR"
        where = f"{cache['folder']}: {cache['files']:,} files, {sized(cache['bytes'])}{state}"
    table.add_row("compiled programs", where)
    libraries = [f"{name} {version}" for name, version in found["versions"].items() if version and name != "pelton"]
    table.add_row("libraries", ", ".join(libraries))
    for name, value in found["environment"].items():
        table.add_row(name, repr(value))
    show.console().print(table)
    if found["trouble"]:
        show.fail(f"JAX finds no device: {found['trouble']}; unset JAX_PLATFORMS, or install the driver it names")
    elif not found["ok"]:
        show.fail("a device does not compute; take another with --device, or reinstall jax for this one")
