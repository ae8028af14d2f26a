"""Compiled programs: each compiled once for its shapes, in the process and on disk, and timed."""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

_CAPACITY = 64
_lock = threading.RLock()
_programs: OrderedDict[Hashable, Any] = OrderedDict()


def _signature(args: tuple) -> Hashable:
    leaves, treedef = jax.tree.flatten(args)
    return treedef, tuple((leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False)) for leaf in leaves)


class Compiler:
    """Compiles the programs of one run, and counts the seconds that took.

    A program is looked up by its function, its static arguments, the shapes of its arguments and the precision. The
    function must build the program from those alone: whatever else it closed over would be frozen into the cache.

    Attributes:
        seconds: spent tracing and compiling so far; 0 where every program was at hand.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, build: Callable[..., Callable], static: tuple, args: tuple) -> Callable:
        """The compiled form of build(*static), for arguments of the shapes of `args`."""
        key = (build, static, _signature(args), jax.config.jax_enable_x64, jax.default_backend())
        with _lock:
            if key in _programs:
                _programs.move_to_end(key)
                return _programs[key]
            started = time.perf_counter()
            with _persistent_cache():
                program = jax.jit(build(*static)).lower(*args).compile()
            self.seconds += time.perf_counter() - started
            _programs[key] = program
            if len(_programs) > _CAPACITY:
                _programs.popitem(last=False)
            return program


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
