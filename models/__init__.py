"""NumPyro models over the kernels, and the decisions taken with their posteriors."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pelton.models.country_mix import country_mix as country_mix


class _Models(ModuleType):
    """The package, with one function of its own, which shares its name with the module that owns it.

    Whoever imports that module has it set as an attribute here; the function stays what the name stands for.
    """

    @property
    def country_mix(self) -> Any:
        from pelton.models.country_mix import country_mix as function

        return function

    @country_mix.setter
    def country_mix(self, module: ModuleType) -> None:
        del module


sys.modules[__name__].__class__ = _Models
