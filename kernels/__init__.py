"""Pure JAX functions of the models: log densities, transforms of spend, conjugate draws."""
