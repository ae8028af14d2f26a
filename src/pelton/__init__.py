"""pelton: a JAX sampling engine for hierarchical marketing models."""

import importlib
import importlib.util
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
    "fit_prior": "pelton.models.single_rate",
    "rate_posterior": "pelton.models.single_rate",
    "unit_table": "pelton.models.decisions",
    "unit_summary": "pelton.models.rates",
    "write_unit_summary": "pelton.models.unit_file",
    "ranking": "pelton.models.decisions",
    "shrinkage": "pelton.models.decisions",
    "split_budget": "pelton.models.decisions",
    "compare": "pelton.models.decisions",
    "compare_loo": "pelton.models.leave_one_out",
    "predict_rates": "pelton.models.prediction",
    "forecast": "pelton.models.forecast",
    "held_out": "pelton.models.decisions",
    "predictive_check": "pelton.models.decisions",
    "Panel": "pelton.models.panel",
    "MediaMix": "pelton.models.media_mix",
    "read_config": "pelton.models.media_config",
    "contributions": "pelton.models.attribution",
    "contribution_table": "pelton.models.attribution",
    "roas": "pelton.models.attribution",
    "roas_table": "pelton.models.attribution",
    "marginal_roas": "pelton.models.attribution",
    "response_curves": "pelton.models.attribution",
    "allocate": "pelton.models.allocation",
    "simulate_stores": "pelton.models.simulate",
    "simulate_markets": "pelton.models.simulate",
    "simulate_media": "pelton.models.simulate",
    "sample": "pelton.engine.run",
    "sample_many": "pelton.engine.many",
    "resume": "pelton.engine.run",
    "load": "pelton.engine.store",
    "approximate": "pelton.engine.approximate",
    "calibrate": "pelton.engine.calibration",
    "rank_picture": "pelton.report.ranks",
    "samplers": "pelton.engine.samplers",
    "diagnose": "pelton.engine.diagnostics",
    "from_logdensity": "pelton.engine.sources.logdensity",
    "from_numpyro": "pelton.engine.sources.numpyro",
    "NutsKernel": "pelton.engine.sources.numpyro_kernel",
    "from_pymc": "pelton.engine.sources.pymc",
    "Posterior": "pelton.engine.posterior",
    "Mesh": "pelton.engine.mesh",
    "Hosts": "pelton.engine.hosts",
    "Target": "pelton.engine.stopping",
}
_MODULES = {
    "errors": "pelton.engine.errors",
    "adstock": "pelton.models.adstock",
    "distributions": "pelton.models.count_distributions",
    "kernels": "pelton.kernels",
    "saturation": "pelton.models.saturation",
    "pymc": "pelton.pymc",
}
# What needs PyMC, which pelton itself does not.
_OPTIONAL = ("from_pymc", "pymc")
# The names that versions keep: docs/stability.md.
__all__ = [  # noqa: PLE0604 (names by registry)
    *sorted({*_PUBLIC, *_MODULES} - set(() if importlib.util.find_spec("pymc") else _OPTIONAL))  # pyright: ignore
]

if TYPE_CHECKING:
    from pelton import kernels as kernels
    from pelton.engine import errors as errors
    from pelton.engine.approximate import approximate as approximate
    from pelton.engine.calibration import calibrate as calibrate
    from pelton.engine.diagnostics import diagnose as diagnose
    from pelton.engine.hosts import Hosts as Hosts
    from pelton.engine.many import sample_many as sample_many
    from pelton.engine.mesh import Mesh as Mesh
    from pelton.engine.posterior import Posterior as Posterior
    from pelton.engine.run import resume as resume
    from pelton.engine.run import sample as sample
    from pelton.engine.samplers import samplers as samplers
    from pelton.engine.sources.logdensity import from_logdensity as from_logdensity
    from pelton.engine.sources.numpyro import from_numpyro as from_numpyro
    from pelton.engine.sources.numpyro_kernel import NutsKernel as NutsKernel
    from pelton.engine.sources.pymc import from_pymc as from_pymc
    from pelton.engine.stopping import Target as Target
    from pelton.engine.store import load as load
    from pelton.models import adstock as adstock
    from pelton.models import count_distributions as distributions  # noqa: F401
    from pelton.models import saturation as saturation
    from pelton.models.allocation import allocate as allocate
    from pelton.models.attribution import contribution_table as contribution_table
    from pelton.models.attribution import contributions as contributions
    from pelton.models.attribution import marginal_roas as marginal_roas
    from pelton.models.attribution import response_curves as response_curves
    from pelton.models.attribution import roas as roas
    from pelton.models.attribution import roas_table as roas_table
    from pelton.models.decisions import compare as compare
    from pelton.models.decisions import held_out as held_out
    from pelton.models.decisions import predictive_check as predictive_check
    from pelton.models.decisions import ranking as ranking
    from pelton.models.decisions import shrinkage as shrinkage
    from pelton.models.decisions import split_budget as split_budget
    from pelton.models.decisions import unit_table as unit_table
    from pelton.models.forecast import forecast as forecast
    from pelton.models.leave_one_out import compare_loo as compare_loo
    from pelton.models.media_config import read_config as read_config
    from pelton.models.media_mix import MediaMix as MediaMix
    from pelton.models.panel import Panel as Panel
    from pelton.models.partial_pooling import PartialPooling as PartialPooling
    from pelton.models.prediction import predict_rates as predict_rates
    from pelton.models.priors import Bda as Bda
    from pelton.models.priors import FixedBeta as FixedBeta
    from pelton.models.priors import GammaShapes as GammaShapes
    from pelton.models.priors import MeanConcentration as MeanConcentration
    from pelton.models.priors import Shapes as Shapes
    from pelton.models.rates import unit_summary as unit_summary
    from pelton.models.simulate import simulate_markets as simulate_markets
    from pelton.models.simulate import simulate_media as simulate_media
    from pelton.models.simulate import simulate_stores as simulate_stores
    from pelton.models.single_rate import fit_prior as fit_prior
    from pelton.models.single_rate import rate_posterior as rate_posterior
    from pelton.models.unit_file import write_unit_summary as write_unit_summary
    from pelton.report.ranks import rank_picture as rank_picture


def __getattr__(name: str) -> Any:
    if name in _OPTIONAL and importlib.util.find_spec("pymc") is None:
        raise ImportError(f"pelton.{name} needs PyMC: pip install 'pelton[pymc]'")
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    raise AttributeError(f"module 'pelton' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
