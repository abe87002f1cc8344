"""Private, fair and fast training of medical-imaging models in JAX."""
