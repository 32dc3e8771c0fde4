"""Model names → modules. Knows nothing of methods."""
