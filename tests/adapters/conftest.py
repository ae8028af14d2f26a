"""Loads the other libraries before any test does, so that what they warn of on loading fails no test."""

import contextlib
import importlib
import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for name in ("pymc", "nutpie", "pymc_marketing.mmm", "pymc_marketing.clv", "bambi"):
        # Older releases of one do not load beside newer releases of another.
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
