"""The shell both pages share: one file that asks for nothing, its text first, the charts' library at its end.

Scripts and styles are inline, the icon is an empty ``data:`` URL, and a content security policy forbids every
request in case something tries. Figures are JSON beside the place where the page's script draws them.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from inspect import isfunction
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from coprune.report import formatting, sentences


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
    return htmlsafe_json_dumps(content, cls=PlotlyJSONEncoder, ensure_ascii=False, separators=(",", ":"))


@cache
def _environment() -> Environment:
    loader = PackageLoader("coprune.report", "templates")
    layout: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **layout)
    made.filters |= {name: value for name, value in vars(formatting).items() if isfunction(value)}
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
