"""The shell both pages share: one file that asks for nothing, its text first, the charts' library at its end.

Scripts and styles are inline, the icon is an empty ``data:`` URL, and a content security policy forbids every
request in case something tries. Figures are JSON beside the place where the page's script draws them.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coprune.report import formatting, sentences

# Inside <script>: "<" may close the element in the middle of a string.
_UNSAFE = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_FILTERS = (
    "capital",
    "counted",
    "duration",
    "method",
    "milliseconds",
    "minus",
    "percent",
    "recovery",
    "si",
    "times",
)


def embed(figure: Any) -> Markup:
    r"""A figure, or a template of figures, as JSON that may stand inside a ``<script>`` element.

    Args:
        figure: of :mod:`plotly.graph_objects`.

    Returns:
        Markup in which ``<``, ``>`` and ``&`` are written as ``\u003c`` and so on, without a theme.
    """
    from plotly.utils import PlotlyJSONEncoder

    content = figure.to_plotly_json()
    content["layout"].pop("template", None)
    text = json.dumps(content, cls=PlotlyJSONEncoder, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.translate(_UNSAFE))


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("coprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {name: getattr(formatting, name) for name in _FILTERS}
    made.filters |= {"embed": embed, "speed": sentences.speed, "place": sentences.place}
    made.globals["STAGES"] = formatting.STAGES
    return made


def page(template: str, **values: Any) -> str:
    """Fill a template, with autoescape on, and inline what it needs.

    Args:
        template: file name in ``report/templates``.
        values: what the template shows.

    Returns:
        The whole page.
    """
    from coprune.report.theme import template as theme

    library = resources.files("coprune.report").joinpath("templates", "plotly.min.js").read_text()
    return _environment().get_template(template).render(theme=theme(), library=Markup(library), **values)
