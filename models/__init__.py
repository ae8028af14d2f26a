"""NumPyro models over the kernels, and the decisions taken with their posteriors."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pelton.models.countries import country_mix as country_mix


def __getattr__(name: str) -> Any:
    # On first use, so that importing a model loads no other.
    if name == "country_mix":
        from pelton.models.countries import country_mix

        return country_mix
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
