"""Puts the steps in order; thin."""
