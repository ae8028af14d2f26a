"""The registry of samplers: one file and one line here make a sampler known."""

from pelton.engine.errors import UnknownNameError
from pelton.engine.samplers.base import Info, Sampler

# name: module and class, imported on first use, so that importing pelton loads no sampler library.
REGISTRY: dict[str, tuple[str, str]] = {
    "nuts": ("pelton.engine.samplers.nuts", "Nuts"),
    "numpyro-nuts": ("pelton.engine.samplers.numpyro_nuts", "NumpyroNuts"),
    "blackjax-nuts": ("pelton.engine.samplers.blackjax_nuts", "BlackjaxNuts"),
    "mixture": ("pelton.engine.samplers.mixture", "MixtureGibbs"),
    "chees": ("pelton.engine.samplers.chees", "Chees"),
    "smc": ("pelton.engine.samplers.smc", "Smc"),
    "mclmc": ("pelton.engine.samplers.mclmc", "Mclmc"),
    "meads": ("pelton.engine.samplers.meads", "Meads"),
    "grid": ("pelton.engine.samplers.grid", "Grid"),
}

DEFAULT = "nuts"


def sampler_class(name: str) -> type[Sampler]:
    """The sampler of that name.

    >>> sampler_class("grid").max_dimension
    2
    """
    import importlib

    if name not in REGISTRY:
        raise UnknownNameError("sampler", name, REGISTRY)
    module, attribute = REGISTRY[name]
    return getattr(importlib.import_module(module), attribute)


def samplers() -> list[str]:
    """Names of the registered samplers.

    >>> samplers()
    ['blackjax-nuts', 'chees', 'grid', 'mclmc', 'meads', 'mixture', 'numpyro-nuts', 'nuts', 'smc']
    """
    return sorted(REGISTRY)


__all__ = ["DEFAULT", "REGISTRY", "Info", "Sampler", "sampler_class", "samplers"]
