"""Compiled programs: each compiled once for its shapes, in the process and on disk, and timed."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding

_CAPACITY = 64
# Traces that wait to be compiled.
_WAITING = 8
_lock = threading.RLock()
_programs: OrderedDict[Hashable, Any] = OrderedDict()
_shapes: OrderedDict[Hashable, Any] = OrderedDict()
_traces: OrderedDict[Hashable, Any] = OrderedDict()


def _signature(args: tuple) -> Hashable:
    leaves, treedef = jax.tree.flatten(args)
    return treedef, tuple(
        (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False), _sharding(leaf, None)) for leaf in leaves
    )


def _sharding(leaf: Any, otherwise: Any) -> Any:
    """How an argument is divided over devices, where it is."""
    found = leaf.sharding if isinstance(leaf, jax.Array) else None
    return found if isinstance(found, NamedSharding) else otherwise


class Request(NamedTuple):
    """A program to compile: build(*static) for arguments of the shapes of `args`, arrays or ShapeDtypeStructs.

    It is compiled for the device; None is the default one. A NamedSharding stands for a row of devices, which hold
    whatever is not divided over them whole.

    The function must build the program from its static arguments alone: whatever else it closed over would be frozen
    into the cache.
    """

    build: Callable[..., Callable]
    static: tuple
    args: tuple
    device: Any = None


class Compiler:
    """Compiles the programs of one run, and counts the seconds that took.

    A program is looked up by its function, its static arguments, the shapes of its arguments, the precision and the
    device.

    Attributes:
        seconds: spent tracing and compiling so far; 0 where every program was at hand.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, request: Request) -> Callable:
        """The compiled form of one program."""
        return self.together([request])[0]

    def result_shapes(self, request: Request) -> Any:
        """Shapes of what the program returns; the trace is kept for when it is compiled."""
        key = _key(request)
        with _lock:
            if key not in _shapes:
                started = time.perf_counter()
                _traces[key] = _traced(request)
                _shapes[key] = jax.tree.map(
                    lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype, weak_type=one.weak_type),
                    _traces[key].out_info,
                )
                self.seconds += time.perf_counter() - started
            _shapes.move_to_end(key)
            _trim(_shapes)
            _trim(_traces, _WAITING)
            return _shapes[key]

    def together(self, requests: Sequence[Request]) -> list[Callable]:
        """The compiled forms of several programs; those not at hand are compiled side by side."""
        keys = [_key(request) for request in requests]
        with _lock:
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in _programs}
            if missing:
                started = time.perf_counter()
                with _persistent_cache(), ThreadPoolExecutor(len(missing)) as pool:
                    # Tracing holds the interpreter, compiling does not: each is handed over as soon as it is traced.
                    found = [
                        pool.submit(_lowered(_traces.pop(key, None) or _traced(request), request.device).compile)
                        for key, request in missing.items()
                    ]
                    for key, future in zip(missing, found, strict=True):
                        _programs[key] = future.result()
                self.seconds += time.perf_counter() - started
            for key in keys:
                _programs.move_to_end(key)
            compiled = [_programs[key] for key in keys]
            _trim(_programs)
            return compiled


def _key(request: Request) -> Hashable:
    return request.build, request.static, _signature(request.args), jax.config.jax_enable_x64, request.device


def _trim(found: OrderedDict[Hashable, Any], capacity: int = _CAPACITY) -> None:
    """Forgets what was asked for longest ago."""
    while len(found) > capacity:
        found.popitem(last=False)


def _traced(request: Request) -> Any:
    if isinstance(request.device, NamedSharding):
        shardings = jax.tree.map(lambda leaf: _sharding(leaf, request.device), request.args)
        program = jax.jit(request.build(*request.static), in_shardings=shardings, out_shardings=request.device)
        return program.trace(*request.args)
    with jax.default_device(request.device):
        return jax.jit(request.build(*request.static)).trace(*request.args)


def _lowered(trace: Any, device: Any) -> Any:
    if isinstance(device, NamedSharding):
        return trace.lower()
    with jax.default_device(device):
        return trace.lower()


def cache_folder() -> Path:
    """Where compiled programs are kept between processes: PELTON_CACHE_DIR, or the user's cache folder."""
    given = os.environ.get("PELTON_CACHE_DIR")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pelton" / "xla"


_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextmanager
def _persistent_cache() -> Iterator[None]:
    """JAX's compilation cache on disk while one program compiles; the process's own settings before and after.

    A cache that the user has configured is used as it is. PELTON_CACHE_DIR="" turns ours off, and so does a folder
    that cannot be written.
    """
    from jax.experimental.compilation_cache import compilation_cache

    folder = cache_folder() if os.environ.get("PELTON_CACHE_DIR") != "" else None
    if jax.config.jax_compilation_cache_dir is not None or folder is None or not _writable(folder):
        yield
        return
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    try:
        # JAX decides once in a process whether it uses a cache; reset makes it look again.
        compilation_cache.reset_cache()
        for name, value in zip(_SETTINGS, (str(folder), 0.0, -1), strict=True):
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
