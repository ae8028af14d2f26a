"""Hosts: processes on several machines that work on one fit together, by JAX's distributed runtime."""

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np

from pelton.engine.arguments import whole
from pelton.engine.errors import ArgumentError, HostError

# Seconds without a sign of life after which a process counts as gone.
PATIENCE = 20
# Seconds between two looks at the others.
_LOOK_SECONDS = 1.0
# Bytes of one message.
_PIECE = 4 * 2**20
_FAILED = "pelton/failed/"


class Hosts:
    """Processes, one on each machine, that all run the same program on shares of one table.

    What they tell one another goes through the key-value store of JAX's distributed runtime, which process 0 keeps;
    no device takes part. A process that fails, is interrupted or dies ends the others with a `HostError`.

    Made by `Hosts.join`.

    Attributes:
        index: this process, from 0.
        count: all of them.

    Args:
        index, count: as above.
        client: of the runtime's key-value store.

    Raises:
        HostError: by each of its methods, where another process has failed or is gone.

    >>> import subprocess, sys
    >>> program = '''
    ... import pelton
    ... with pelton.Hosts.join("127.0.0.1:8476", count=1, index=0) as hosts:  # 2 and more, and 1 on the second
    ...     print(hosts.gather(b"what process 0 says"))'''
    >>> print(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip())
    [b'what process 0 says']
    """

    def __init__(self, index: int, count: int, client: Any):
        self.index, self.count = index, count
        self._client = client
        self._round = 0
        self._looked = time.monotonic()

    @classmethod
    def join(
        cls,
        coordinator: str | None = None,
        count: int | None = None,
        index: int | None = None,
        *,
        seconds: int = 300,
    ) -> "Hosts":
        """Meets the other processes; before anything else uses JAX.

        Args:
            coordinator: address and port of process 0, such as "10.0.0.1:8476".
            count: processes in all.
            index: this one, from 0. Where all three are left out, Slurm, Open MPI, Kubernetes and the clouds that JAX
                knows say them.
            seconds: to wait for the others.

        Raises:
            ArgumentError: numbers are out of range, or nothing says who the others are.
            HostError: they cannot meet. Where they do not come in time, JAX's runtime ends the process.
        """
        if count is not None:
            whole("processes", count, 1)
        if index is not None:
            whole("process", index, 0)
            if count is not None and index >= count:
                raise ArgumentError(f"process is a whole number below that of processes ({count}), not {index}")
        # A process that dies is told of by a HostError rather than by the runtime, which would end all the others.
        jax.config.update("jax_enable_recoverability", True)
        try:
            jax.distributed.initialize(
                coordinator,
                count,
                index,
                initialization_timeout=seconds,
                heartbeat_timeout_seconds=PATIENCE,
                shutdown_timeout_seconds=PATIENCE,
            )
        except ValueError:
            raise ArgumentError(
                "nothing says who the other processes are: give coordinator (HOST:PORT of process 0), processes (in "
                "all) and process (this one, from 0), or start them by Slurm or Open MPI, which do"
            ) from None
        except RuntimeError as error:
            raise HostError(
                f"the processes cannot meet: {_short(error)}; start all of them, each with a number of its own, and "
                "join before anything else uses JAX"
            ) from None
        # The public interface has no key-value store; orbax and others take it from here, too.
        from jax._src.distributed import global_state

        return cls(global_state.process_id, int(global_state.num_processes or 1), global_state.client)

    def exchange(self, parts: Sequence[bytes]) -> list[bytes]:
        """Sends part p to process p; returns what each process sent to this one.

        Raises:
            HostError: another process has failed or is gone.
        """
        self._round += 1
        for other, part in enumerate(parts):
            pieces = range(0, max(len(part), 1), _PIECE)
            for number, begin in enumerate(pieces):
                last = b"\1" if number == len(pieces) - 1 else b"\0"
                self._set(self._key(self.index, other, number), last + part[begin : begin + _PIECE])
        return [self._received(other) for other in range(self.count)]

    def gather(self, part: bytes) -> list[bytes]:
        """What each process gives, by its number.

        Raises:
            HostError: another process has failed or is gone.
        """
        return self.exchange([part] * self.count)

    def first(self, make: Callable[[], bytes]) -> bytes:
        """What process 0 makes, while the others wait for it.

        Raises:
            HostError: another process has failed or is gone.
        """
        made = make() if self.index == 0 else b""
        return self.gather(made)[0]

    def look(self) -> None:
        """Looks whether the others are at work, now and then; between the parts of a long work of one's own.

        Raises:
            HostError: another process has failed or is gone.
        """
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        try:
            # In this order: who leaves has said before why.
            alive = self._client.get_live_nodes(list(range(self.count)))
            failed = self._client.key_value_dir_get_bytes(_FAILED)
        except jax.errors.JaxRuntimeError as error:
            raise self._lost(0, _short(error)) from None
        self._looked = time.monotonic()
        for _, message in failed:
            raise HostError(bytes(message).decode())
        for number in range(self.count):
            if number not in alive:
                raise self._lost(number, f"no sign of life for {PATIENCE} s")

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del trace
        try:
            if error is None:
                # Nobody leaves before all are done.
                self.gather(b"")
            else:
                said = str(error) or (kind.__name__ if kind is not None else "")
                if not isinstance(error, HostError):
                    said = f"process {self.index} of {self.count} stopped: {said}"
                self._tell(f"{_FAILED}{self.index}", said.encode())
        finally:
            if self.index == 0:
                self._see_off()
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                jax.distributed.shutdown()

    def _see_off(self) -> None:
        """Process 0 keeps the store, and is the last to leave."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and len(self._client.get_live_nodes(list(range(self.count)))) > 1:
            time.sleep(0.1)

    def _key(self, sender: int, receiver: int, piece: int) -> str:
        return f"pelton/{self._round}/{sender}/{receiver}/{piece}"

    def _set(self, key: str, value: bytes) -> None:
        try:
            self._client.key_value_set_bytes(key, value)
        except jax.errors.JaxRuntimeError as error:
            raise self._lost(0, _short(error)) from None

    def _tell(self, key: str, value: bytes) -> None:
        """Says it to those who are still there."""
        try:
            self._client.key_value_set_bytes(key, value)
        except jax.errors.JaxRuntimeError:
            return

    def _received(self, sender: int) -> bytes:
        found = bytearray()
        for number in range(2**31):
            key = self._key(sender, self.index, number)
            piece = self._awaited(key)
            self._client.key_value_delete(key)
            found += piece[1:]
            if piece[0]:
                break
        return bytes(found)

    def _awaited(self, key: str) -> bytes:
        while True:
            try:
                return self._client.blocking_key_value_get_bytes(key, int(1000 * _LOOK_SECONDS))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise self._lost(0, _short(error)) from None
            self.look()

    def _lost(self, number: int, why: str) -> HostError:
        return HostError(
            f"process {number} of {self.count} is gone ({why}); what this one had done is not lost where it was on "
            "disk: start all of them again, with --resume or pelton.resume where a run had begun"
        )


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def packed(**arrays: np.ndarray) -> bytes:
    """Arrays as bytes, for `Hosts.gather`.

    >>> {name: values.tolist() for name, values in unpacked(packed(a=np.arange(3))).items()}
    {'a': [0, 1, 2]}
    """
    held = io.BytesIO()
    np.savez(held, **arrays)  # pyright: ignore[reportArgumentType]
    return held.getvalue()


def unpacked(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of `packed`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
