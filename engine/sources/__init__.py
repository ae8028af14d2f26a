"""Anything that has a log density, turned into a Posterior."""
