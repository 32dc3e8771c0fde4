"""A model as ONNX or as a ``torch.export`` program, checked before it is written. Knows no methods."""

from coprune.export.check import check_against, samples_of_sizes
from coprune.export.formats import FORMATS, Format
from coprune.export.program import input_names, traced_program

__all__ = ["FORMATS", "Format", "check_against", "input_names", "samples_of_sizes", "traced_program"]
"""Shapes: ``N`` samples, ``C`` classes, ``T`` tokens; in all that is exported ``N`` and ``T`` are free."""
