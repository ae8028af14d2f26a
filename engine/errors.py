"""The errors and warnings of pelton, each naming what was wrong, where, the value seen and the remedy."""

import difflib
from collections.abc import Iterable


class PeltonError(Exception):
    """Base of every error that a user can cause."""


class DataError(PeltonError, ValueError):
    """The data cannot be used as they are; the message names row, column, unit and value."""


class ArgumentError(PeltonError, ValueError):
    """A setting is out of range or contradicts another."""


class UnknownNameError(ArgumentError, KeyError):
    """A name that is in no registry; the message lists the nearest names.

    >>> raise UnknownNameError("sampler", "nutz", ["nuts", "grid"])
    Traceback (most recent call last):
        ...
    pelton.engine.errors.UnknownNameError: unknown sampler 'nutz'; did you mean 'nuts'? Known: grid, nuts
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        super().__init__(f"unknown {kind} {name!r}{hint} Known: {', '.join(known) or 'none'}")

    def __str__(self) -> str:
        # KeyError would print the message quoted.
        return str(self.args[0])


class ModelError(PeltonError, ValueError):
    """The model cannot be sampled: a discrete latent, a log density that is NaN at every start, ..."""


class StartError(ModelError):
    """No start has a finite log density and gradient.

    Attributes:
        members: of a batch of posteriors those without one, by their places in it.
    """

    def __init__(self, message: str, members: Iterable[int] = ()):
        super().__init__(message)
        self.members = tuple(members)


class OutputError(PeltonError, OSError):
    """A result could not be written; what stood there before is untouched."""


class StoreError(PeltonError, OSError):
    """A stored run cannot be read or resumed: it is damaged, or of another model, data or settings."""


class ResourceError(PeltonError, MemoryError):
    """The machine has not enough memory for what was asked; the message says how much would fit."""


class DeviceError(PeltonError, RuntimeError):
    """A device failed, or stopped answering, while a program ran on it; the message says what is left of the run."""


class HostError(PeltonError, RuntimeError):
    """Another process of a run over several hosts failed, was interrupted or is gone; the message says which."""


class PeltonWarning(UserWarning):
    """Base of every warning."""


class DataWarning(PeltonWarning):
    """The data are usable, with a consequence that the message names."""


class ConvergenceWarning(PeltonWarning):
    """The posterior draws should not be trusted as they are; the message names the remedy."""
