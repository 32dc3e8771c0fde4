"""What outputs mean: readers, divergences, metrics, losses, and the built-in tasks made of them."""
