"""The registry of fast approximations: one file and one line here make a method known."""

from pelton.engine.approximations.base import Approximation
from pelton.engine.errors import UnknownNameError

# name: module and class, imported on first use, so that importing pelton loads no optimiser.
REGISTRY: dict[str, tuple[str, str]] = {
    "pathfinder": ("pelton.engine.approximations.pathfinder", "Pathfinder"),
    "laplace": ("pelton.engine.approximations.laplace", "Laplace"),
    "advi": ("pelton.engine.approximations.advi", "Advi"),
    "map": ("pelton.engine.approximations.map", "Map"),
}

DEFAULT = "pathfinder"


def approximation_class(name: str) -> type[Approximation]:
    """The approximation of that name.

    >>> approximation_class("laplace").max_dimension
    2000
    """
    import importlib

    if name not in REGISTRY:
        raise UnknownNameError("approximation", name, REGISTRY)
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(module), attribute)


__all__ = ["DEFAULT", "REGISTRY", "Approximation", "approximation_class"]
