"""PyMC-Marketing's adstock and saturation functions, compiled by PyTensor: by its default, Numba, and by JAX."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytensor.xtensor as ptx
from pymc_marketing.mmm import transformers
from pytensor.graph import rewrite_graph

pytensor.config.floatX = "float32"
PACKAGES = ["pymc-marketing", "pymc", "pytensor", "numba", "jax", "numpy"]
WAYS = {"Numba": "cpu", "JAX": jax.default_backend()}
DIMS = {1: ("channel",), 2: ("geo", "channel"), 3: ("geo", "time", "channel")}


def _carried(options: dict[str, Any], x: Any, values: dict[str, Any]) -> Any:
    name, settings = options["adstock"], {"l_max": options["window"], "normalize": True, "dim": "time"}
    if name == "geometric":
        return transformers.geometric_adstock(x, values["alpha"], **settings)
    if name == "delayed":
        return transformers.delayed_adstock(x, values["alpha"], values["theta"], **settings)
    if name == "binomial":
        return transformers.binomial_adstock(x, values["alpha"], **settings)
    kind = name.removeprefix("weibull_").upper()
    return transformers.weibull_adstock(x, values["scale"], values["shape"], type=kind, **settings)


def _saturated(name: str, x: Any, values: dict[str, Any]) -> Any:
    if name == "hill":
        return transformers.hill_function(x, values["slope"], values["half_saturation"])
    if name == "logistic":
        return transformers.logistic_saturation(x, values["rate"])
    if name == "michaelis_menten":
        return transformers.michaelis_menten(x, 1.0, values["half_saturation"])
    if name == "tanh":
        return transformers.tanh_saturation(x, 1.0, values["scale"])
    if name == "root":
        return transformers.root_saturation(x, values["power"])
    raise LookupError(f"no {name} saturation")


def build(way: str, options: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], tuple[Any, ...]]:
    """Half the sum of squared errors and its gradient."""
    plain = {name: pt.tensor(name, dtype=array.dtype, shape=array.shape) for name, array in arrays.items()}
    summed = arrays["target"].ndim == 2
    dims = {name: DIMS[array.ndim] for name, array in arrays.items()} | ({"target": ("geo", "time")} if summed else {})
    values = {name: ptx.as_xtensor(tensor, dims=dims[name]) for name, tensor in plain.items()}
    x = values["spend"]
    if options["adstock"]:
        x = _carried(options, x, values)
    if options["saturation"]:
        x = _saturated(options["saturation"], x, values)
    if summed:
        x = (values["coef"] * x).sum(dim="channel")
    error = x.transpose(*dims["target"]).values - plain["target"]
    # Named dimensions have no gradient of their own.
    loss = rewrite_graph(0.5 * (error**2).sum(), include=("lower_xtensor", "canonicalize", "stabilize"))
    outputs = [loss, *pt.grad(loss, [plain[name] for name in options["wrt"]])]
    run = pytensor.function(list(plain.values()), outputs, mode=way.upper(), trust_input=True, on_unused_input="ignore")
    inputs = list(arrays.values())
    return lambda: tuple(jax.block_until_ready(run(*inputs)) if way == "JAX" else run(*inputs))
