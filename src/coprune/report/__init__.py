"""Pages for people: one self-contained HTML file from a run folder or from a comparison.

Knows nothing of torch: everything is read from ``plan.json``, ``result.json`` and ``compare.json``, and
the mean attention maps of heads from ``profile/``.
"""

from coprune.report.compare import render_compare, write_compare
from coprune.report.run import render, write
from coprune.report.summary import notes_of, summarise

__all__ = ["notes_of", "render", "render_compare", "summarise", "write", "write_compare"]
