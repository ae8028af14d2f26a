"""pelton: a JAX sampling engine for hierarchical marketing models."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name: module that owns it. Loaded on first use, so that importing pelton loads neither JAX nor a model.
_PUBLIC = {
    "PartialPooling": "pelton.models.partial_pooling",
    "MeanConcentration": "pelton.models.priors",
    "GammaShapes": "pelton.models.priors",
    "Shapes": "pelton.models.priors",
    "FixedBeta": "pelton.models.priors",
    "Bda": "pelton.models.priors",
    "sample": "pelton.engine.run",
    "from_numpyro": "pelton.engine.sources.numpyro",
    "Posterior": "pelton.engine.posterior",
}
_MODULES = {"errors": "pelton.engine.errors"}

if TYPE_CHECKING:
    from pelton.engine import errors as errors
    from pelton.engine.posterior import Posterior as Posterior
    from pelton.engine.run import sample as sample
    from pelton.engine.sources.numpyro import from_numpyro as from_numpyro
    from pelton.models.partial_pooling import PartialPooling as PartialPooling
    from pelton.models.priors import Bda as Bda
    from pelton.models.priors import FixedBeta as FixedBeta
    from pelton.models.priors import GammaShapes as GammaShapes
    from pelton.models.priors import MeanConcentration as MeanConcentration
    from pelton.models.priors import Shapes as Shapes


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'pelton' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])
