"""Sampling: posteriors, samplers, the driver that runs them, and the results."""
