"""NumPyro models over the kernels, and the decisions taken with their posteriors."""
