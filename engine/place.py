"""Where the files of a run are: each is written whole or not at all, and one process writes."""

import contextlib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from pelton.engine.errors import OutputError, StoreError

# Files of a run that are no part of its Zarr hierarchy.
PRIVATE = ".pelton"
_LOCK = f"{PRIVATE}/lock"
_ASIDE = "aside-"
# What file systems that cannot wait for their disks say.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EROFS)


@runtime_checkable
class Place(Protocol):
    """Files by name, with "/" between folders."""

    @property
    def url(self) -> str:
        """What opens the place as a Zarr store."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is no such file."""
        ...

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """Puts a file in place of what stood there; `durable` waits until not even a power cut undoes it.

        Raises:
            OutputError: it cannot be written; what stood there is untouched.
        """
        ...

    def names(self) -> list[str]:
        """All files but those of unfinished writes."""
        ...

    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        ...

    def locked(self) -> Any:
        """A context in which no other process writes here.

        Raises:
            OutputError: another one does.
        """
        ...


def place(path: str | os.PathLike[str]) -> Place:
    """The place of a path, or of an fsspec URL such as "s3://bucket/run.zarr".

    >>> place("run.zarr").url
    'run.zarr'
    """
    text = os.fspath(path)
    return RemotePlace(text) if "://" in text and not text.startswith("file://") else LocalPlace(text)


def _refusal(where: str, error: Exception) -> OutputError:
    reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return OutputError(f"cannot write the run to {where!r}: {reason}; what it has written so far is whole")


class LocalPlace:
    """A folder."""

    def __init__(self, path: str):
        self.root = Path(path.removeprefix("file://"))
        self._aside = 0

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.root)

    def read(self, name: str) -> bytes | None:
        """A file's bytes; None where there is no such file."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name!r} of the run in {self.url!r}: {error.strerror or error}") from error

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """Writes aside, then renames."""
        target, folder = self.root / name, self.root / PRIVATE
        self._aside += 1
        scratch = folder / f"{_ASIDE}{os.getpid()}-{self._aside}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with scratch.open("wb") as handle:
                    handle.write(data)
                    if durable:
                        handle.flush()
                        _to_disk(handle.fileno())
                os.replace(scratch, target)
            except BaseException:
                with contextlib.suppress(OSError):
                    scratch.unlink()
                raise
            if durable:
                _folder_to_disk(target.parent)
        except OSError as error:
            raise _refusal(self.url, error) from error

    def names(self) -> list[str]:
        """All files but those of unfinished writes."""
        files = (file.relative_to(self.root).as_posix() for file in self.root.rglob("*") if file.is_file())
        return sorted(name for name in files if not name.startswith(f"{PRIVATE}/{_ASIDE}"))

    def delete(self, name: str) -> None:
        """Removes a file, if it is there."""
        try:
            (self.root / name).unlink(missing_ok=True)
        except OSError as error:
            raise _refusal(self.url, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the operating system's lock on a file, which ends with the process however it ends."""
        from filelock import FileLock, Timeout

        try:
            (self.root / PRIVATE).mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / _LOCK, timeout=0, is_singleton=False)
            lock.acquire()
        except Timeout:
            raise OutputError(
                f"another process is writing the run in {self.url!r}; wait until it ends, or give another path"
            ) from None
        except OSError as error:
            raise _refusal(self.url, error) from error
        try:
            # What a process that was killed left behind.
            for file in (self.root / PRIVATE).glob(f"{_ASIDE}*"):
                with contextlib.suppress(OSError):
                    file.unlink()
            yield
        finally:
            lock.release()


class RemotePlace:
    """A folder of any file system that fsspec knows; a write there puts the whole object at once.

    There is no lock that ends with its process: that two processes do not write one run is up to their users.
    """

    def __init__(self, url: str):
        try:
            import fsspec
        except ImportError as error:
            raise StoreError(f"the path {url!r} needs fsspec: pip install 'pelton[remote]'") from error
        try:
            self.files, self.root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"cannot open {url!r}: {error}") from error
        self.url = url

    def read(self, name: str) -> bytes | None:
        """An object's bytes; None where there is no such object."""
        try:
            return self.files.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot read {name!r} of the run in {self.url!r}: {error}") from error

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """Puts an object."""
        del durable
        try:
            self.files.pipe_file(self._path(name), data)
        except OSError as error:
            raise _refusal(self.url, error) from error

    def names(self) -> list[str]:
        """All objects."""
        try:
            found = self.files.find(self.root)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(path).relative_to(self.root).as_posix() for path in found)

    def delete(self, name: str) -> None:
        """Removes an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.files.rm_file(self._path(name))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nothing: see the class."""
        yield

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


def _to_disk(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _folder_to_disk(folder: Path) -> None:
    """Waits until a rename in the folder is on the disk, where the system lets one."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _to_disk(descriptor)
    finally:
        os.close(descriptor)
