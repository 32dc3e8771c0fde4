"""Complementary pruning for PyTorch: keep the channels that say different things."""
