"""Pure JAX functions of the models: log densities, transforms of spend, conjugate draws.

Public as `pelton.kernels`, a module for each subject: `adstock` (geometric, delayed, binomial, weibull_pdf,
weibull_cdf), `saturation` (hill, exponential, logistic, michaelis_menten, tanh, root), `media` (carryover and
saturation in one), `beta_binomial` (log_pmf, log_likelihood, draw_rates), `random_effects` and `special`. They import
JAX and NumPy and nothing of pelton, and take part in any JAX program: jit, grad, vmap.

>>> import numpy as np
>>> import pelton
>>> spend = np.array([[1.0], [0.0], [0.0]])
>>> print(pelton.kernels.adstock.geometric(spend, 0.5, l_max=3, normalize=False)[:, 0])
[1.   0.5  0.25]
"""

import importlib
from typing import TYPE_CHECKING, Any

_MODULES = ("adstock", "beta_binomial", "media", "random_effects", "saturation", "special")

if TYPE_CHECKING:
    from pelton.kernels import adstock as adstock
    from pelton.kernels import beta_binomial as beta_binomial
    from pelton.kernels import media as media
    from pelton.kernels import random_effects as random_effects
    from pelton.kernels import saturation as saturation
    from pelton.kernels import special as special


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"pelton.kernels.{name}")
    raise AttributeError(f"module 'pelton.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
