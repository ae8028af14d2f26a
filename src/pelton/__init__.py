"""pelton: a JAX sampling engine for hierarchical marketing models."""

__version__ = "0.1.0"
