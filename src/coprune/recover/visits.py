"""A forward pass that stops by at every layer of the walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from coprune.errors import UserError
from coprune.forward import Inputs, copied, logits_of
from coprune.recover.calls import Place, Taps
from coprune.recover.sites import Site

Visitor = Callable[[Site, nn.Module, Tensor, "Tensor | None"], None]


def visit_sites(
    model: nn.Module, sites: list[Site], inputs: Inputs, visitor: Visitor, *, after: bool = False
) -> None:
    """Run a forward pass that stops by at every site.

    Args:
        model: run on ``inputs``.
        sites: where to stop by.
        inputs: ``[N, …]``.
        visitor: told site, layer, what the layer reads (or, ``after``, what it puts out) and the
            other operand of the sum behind it. A layer that it changes runs with its new weights.
        after: whether to stop behind the layers rather than in front of them.
    """
    waiting: dict[str, Tensor] = {}
    takers: dict[Place, list[Callable[[Tensor], None]]] = {}
    for site in sites:
        if site.other is not None:

            def take(value: Tensor, name: str = site.layer) -> None:
                waiting[name] = value

            takers.setdefault(site.other, []).append(take)
    taps = Taps(takers)
    handles = []
    for site in sites:
        layer = model.get_submodule(site.layer)

        def stop(layer: nn.Module, args: Any, output: Any = None, site: Site = site) -> None:
            if site.other is not None and site.layer not in waiting:
                raise UserError(
                    f"layer '{site.layer}': what is added to its output was not met: these samples take "
                    "another way through the model than the first two; use --recovery bn or none"
                )
            with taps.aside():
                visitor(site, layer, output if after else args[0], waiting.pop(site.layer, None))

        handles.append(layer.register_forward_hook(stop) if after else layer.register_forward_pre_hook(stop))
    read = copied(inputs)  # which a model whose first layer works in place changes
    try:
        with taps.of(model):
            logits_of(model, read)
    finally:
        for handle in handles:
            handle.remove()
