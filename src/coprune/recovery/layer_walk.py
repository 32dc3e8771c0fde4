"""A forward pass that stops by at every layer of the walk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from coprune.errors import UserError, setting
from coprune.recovery.lockstep import Lockstep
from coprune.tracing.call_trace import Place, Taps
from coprune.tracing.forward import Inputs, copied, logits_of
from coprune.tracing.layer_graph import Site

Visitor = Callable[[Site, nn.Module, Tensor, "Tensor | None", int], None]


def visit_sites(
    model: nn.Module, sites: list[Site], parts: Sequence[Inputs], visitor: Visitor, *, after: bool = False
) -> None:
    """Run forward passes that stop by at every site, together: no part goes on before all have come there.

    Args:
        model: run on each of the parts, without gradients.
        sites: where to stop by.
        parts: samples ``[N, …]``, several where they are of different sizes, as texts are.
        visitor: told site, layer, what the layer reads (or, ``after``, what it puts out), the other operand
            of the sum behind it, and the number of the part. A layer that it changes at the last part
            runs with its new weights in all of them.
        after: whether to stop behind the layers rather than in front of them.
    """
    together = Lockstep(len(parts))
    waiting: list[dict[str, Tensor]] = [{} for _ in parts]

    def taps_of(part: int) -> Taps:
        takers: dict[Place, list[Callable[[Tensor], None]]] = {}
        for site in sites:
            if site.other is not None:
                take = partial(waiting[part].__setitem__, site.layer)
                takers.setdefault(site.other, []).append(take)
        return Taps(takers)

    taps = [taps_of(part) for part in range(len(parts))]

    @torch.no_grad()
    def run(part: int) -> None:
        read = copied(parts[part])  # which a model whose first layer works in place changes
        with taps[part].of(model):
            logits_of(model, read)

    with ExitStack() as hooks:
        for site in sites:
            layer = model.get_submodule(site.layer)

            def stop(layer: nn.Module, args: Any, output: Any = None, site: Site = site) -> None:
                part = together.turn
                if site.other is not None and site.layer not in waiting[part]:
                    raise UserError(
                        f"layer '{site.layer}': what is added to its output was not met: these samples take "
                        f"another way through the model than the first two; use {setting('recovery', 'bn')}"
                    )
                with taps[part].aside():
                    other = waiting[part].pop(site.layer, None)
                    visitor(site, layer, output if after else args[0], other, part)
                    together.stop()

            register = layer.register_forward_hook if after else layer.register_forward_pre_hook
            hooks.enter_context(register(stop))
        together.run(run)
