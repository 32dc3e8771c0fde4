"""The shell both pages share: template environment, inlined plotly.js, embedded data.

A page is one file that asks for nothing: scripts and styles are inline, the icon is an empty
``data:`` URL, and a content security policy forbids every request in case something tries.
"""

from __future__ import annotations

import json
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coprune.report import formatting as words

# "<" closes a script block in the middle of a string; the two separators end a line in old JavaScript.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def embed(value: Any) -> Markup:
    r"""JSON that may stand inside a ``<script>`` element whatever its strings hold.

    Args:
        value: anything JSON can say.

    Returns:
        Markup in which ``<``, ``>`` and ``&`` are written as ``\u003c`` and so on.
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character, escape in _UNSAFE.items():
        text = text.replace(character, escape)
    return Markup(text)


def page(template: str, *, data: Any, **values: Any) -> str:
    """Fill a template, with autoescape on, and inline what it needs.

    Args:
        template: file name in ``report/templates``.
        data: what the page's script draws from, see :func:`embed`.
        values: what the template shows.

    Returns:
        The whole page.
    """
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("coprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent, count=words.count, size=words.size, points=words.points, ms=words.milliseconds
    )
    return environment.get_template(template).render(
        data=embed(data), plotly=Markup(get_plotlyjs()), **values
    )
