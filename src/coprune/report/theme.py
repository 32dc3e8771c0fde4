"""How every figure looks: one Plotly template, the style sheet's colours by name, and the traces that occur.

Colours are written as in CSS, ``var(--kept)``; the page's script puts in what the style sheet says, so that
light and dark agree. Traces are dicts, which :class:`plotly.graph_objects.Figure` checks.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

INK, MUTED, LINE, PANEL = (f"var(--{name})" for name in ("ink", "muted", "line", "panel"))
KEPT, SOFT, PALE = "var(--kept)", "var(--soft)", "var(--pale)"
REMOVED, ACCENT, BASE = "var(--removed)", "var(--accent)", "var(--base)"

HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8a8f94")
"""Colour-blind safe (Okabe and Ito 2008, without yellow and black)."""

SHAPES = ("circle", "square", "diamond", "triangle-up", "pentagon")
"""They tell more than seven things apart."""

Trace = dict[str, Any]


def template() -> go.layout.Template:
    """The theme that all figures share."""
    axis: Trace = {"gridcolor": LINE, "linecolor": LINE, "zeroline": False, "fixedrange": True}
    axis |= {"tickfont": {"size": 12, "color": MUTED}, "title": {"font": {"size": 13, "color": MUTED}}}
    axis["automargin"] = True
    shared: Trace = {"font": {"family": "system-ui, -apple-system, sans-serif", "size": 13, "color": INK}}
    shared |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "hovermode": "closest"}
    shared |= {"showlegend": False, "dragmode": False, "margin": {"l": 8, "r": 12, "t": 36, "b": 46}}
    shared |= {"hoverlabel": {"bgcolor": PANEL, "bordercolor": LINE, "font": {"color": INK}, "align": "left"}}
    shared |= {"legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"}}
    shared |= {"annotationdefaults": {"showarrow": False, "font": {"size": 12, "color": MUTED}}}
    scale = [[0, PANEL], [0.01, PALE], [0.4, SOFT], [1, KEPT]]
    shared |= {"coloraxis": {"colorscale": scale, "colorbar": {"thickness": 10, "outlinewidth": 0}}}
    return go.layout.Template(layout={**shared, "xaxis": axis, "yaxis": axis})


Rule = tuple[Trace, Trace]
"""A straight line across a figure, and its label."""


def rule(
    at: float, text: str, color: str, *, axis: str = "y", dash: str = "dash", log: bool = False, **label: Any
) -> Rule:
    """A straight line across a figure, with its label above the end of it.

    Args:
        at: where it crosses the axis.
        text: the label; may be empty.
        color: of both.
        axis: ``x``, ``y`` or ``y2``.
        dash: of the line.
        log: whether the axis is logarithmic.
        label: what is different of the label, as Plotly's annotations have it.
    """
    own, other = ("x", "y") if axis == "x" else ("y", "x")
    both = {f"{own}ref": axis, f"{other}ref": "paper"}
    ends = {f"{own}0": at, f"{own}1": at, f"{other}0": 0, f"{other}1": 1}
    words: Trace = {own: math.log10(at) if log else at, other: int(own == "x"), "xanchor": "left"}
    words |= {"yanchor": "bottom", "text": f" {text} ", "font": {"color": color}, "yshift": 0}
    return both | ends | {"line": {"color": color, "width": 1.5, "dash": dash}}, both | words | label


def figure(traces: Iterable[Trace], *, height: int, rules: Sequence[Rule] = (), **layout: Any) -> go.Figure:
    """A figure whose theme comes from the page.

    Args:
        traces: from the lowest to the topmost.
        height: in pixels; the width is the page's.
        rules: lines across it.
        layout: as :class:`plotly.graph_objects.Layout` takes it; ``meta`` holds what is different on a narrow
            screen, by part of the layout.
    """
    labels = [label for _, label in rules if label["text"].strip()] + layout.pop("annotations", [])
    bare = {"height": height, "template": go.layout.Template(), "shapes": [shape for shape, _ in rules]}
    return go.Figure(list(traces), {**bare, **layout, "annotations": labels})


def points(x: Sequence[Any], y: Sequence[Any], about: Sequence[str], color: Any, **more: Any) -> Trace:
    """Marks with a hover text each; ``size`` and ``symbol`` are the marks'."""
    marker = {"color": color, "size": more.pop("size", 11), "symbol": more.pop("symbol", "circle")}
    trace = {"type": "scatter", "mode": "markers", "x": x, "y": y, "marker": marker, "cliponaxis": False}
    return {**trace, "hovertext": about, "hoverinfo": "text", **more}


def line(x: Sequence[Any], y: Sequence[Any], color: str, **more: Any) -> Trace:
    """A line without hover texts."""
    trace = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": {"color": color}}
    return {**trace, "showlegend": False, "hoverinfo": "skip", **more}


def bars(x: Sequence[Any], y: Sequence[Any], about: Sequence[str], color: Any, **more: Any) -> Trace:
    """Bars with a hover text each."""
    trace = {"type": "bar", "x": x, "y": y, "marker": {"color": color, "line": {"width": 0}}}
    return {**trace, "cliponaxis": False, "hovertext": about, "hoverinfo": "text", **more}


def whiskers(spans: Sequence[tuple[float, float, float]], color: str) -> dict[str, Any]:
    """Error bars from (least, middle, greatest)."""
    down, up = [middle - low for low, middle, _ in spans], [high - middle for _, middle, high in spans]
    return {"symmetric": False, "array": up, "arrayminus": down, "color": color, "thickness": 1.5, "width": 4}


def safe(text: object) -> str:
    """Text for a label: Plotly reads labels as a small HTML, names must not be."""
    return html.escape(str(text), quote=False)


def named_rows(names: Sequence[str], beside: Sequence[str] = ()) -> dict[str, Any]:
    """The layout of a figure with a row a name, the first on top.

    Args:
        names: of the rows; they are shortened, on a narrow screen more.
        beside: what stands on the right of each.
    """
    wide, narrow = (
        [safe(n if len(n) <= m else f"{n[: m // 3]}…{n[-m // 2 :]}") + " " for n in names] for m in (36, 18)
    )
    axis = {"type": "category", "categoryarray": names, "tickvals": names, "showgrid": False}
    axis |= {"range": [len(names) - 0.4, -0.6], "ticktext": wide, "tickfont": {"size": 12, "color": INK}}
    right = {"xref": "paper", "x": 1, "xanchor": "left"}
    texts = [{**right, "y": name, "text": text} for name, text in zip(names, beside, strict=False)]
    return {"yaxis": axis, "annotations": texts, "meta": {"yaxis": {"ticktext": narrow}}}
