"""Meridian's adstock and Hill transformers under its JAX backend, compiled; geos stand where it has batches.

Its parameters have no geos, so that each geo is a batch of one. Its binomial decay has another reach than the others'.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import os
from collections.abc import Callable
from typing import Any

# It computes in float64 otherwise, whatever it is given.
os.environ["MERIDIAN_BACKEND"] = "jax"
os.environ["MERIDIAN_ENABLE_JAX_X64"] = "false"

import jax
import jax.numpy as jnp
import numpy as np
from meridian.model import adstock_hill

PACKAGES = ["google-meridian", "jax", "numpy"]
WAYS = {"JAX": jax.default_backend()}


def _response(options: dict[str, Any], values: dict[str, Any]) -> Any:
    x = values["spend"][:, None]
    if options["adstock"]:
        if options["adstock"] != "geometric":
            raise LookupError(f"no {options['adstock']} adstock")
        x = adstock_hill.AdstockTransformer(values["alpha"], options["window"] - 1, x.shape[-2]).forward(x)
    if options["saturation"]:
        if options["saturation"] != "hill":
            raise LookupError(f"no {options['saturation']} saturation")
        x = adstock_hill.HillTransformer(values["half_saturation"], values["slope"]).forward(x)
    x = x[:, 0]
    return (values["coef"][:, None] * x).sum(-1) if "coef" in values else x


def build(way: str, options: dict[str, Any], arrays: dict[str, np.ndarray]) -> Callable[[], tuple[Any, ...]]:
    """Half the sum of squared errors and its gradient."""
    del way
    values = {name: jnp.asarray(array) for name, array in arrays.items()}
    wrt = {name: values[name] for name in options["wrt"]}

    def loss(wrt: dict[str, Any], values: dict[str, Any]) -> Any:
        return 0.5 * ((_response(options, {**values, **wrt}) - values["target"]) ** 2).sum()

    compiled = jax.jit(jax.value_and_grad(loss))

    def call() -> tuple[Any, ...]:
        value, gradient = jax.block_until_ready(compiled(wrt, values))
        return value, *(gradient[name] for name in options["wrt"])

    return call
