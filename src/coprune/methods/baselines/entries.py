"""The baselines' entries in the registry."""

from __future__ import annotations

from functools import partial
from typing import Any

from coprune.bounds import Share
from coprune.lazy import deferred
from coprune.methods.base import Method, NoSettings
from coprune.methods.cahp.settings import SALIENCE, SIGNATURES, ClusterSettings
from coprune.options import Options

_IMPORTANCE = deferred("coprune.statistics:Importance")
_MOMENTS = deferred("coprune.statistics:InputMoments")
_MAGNITUDE = deferred("coprune.methods.baselines.heads:HeadMagnitude")

_UNSEEN = "Torch-Pruning reads no weights of these channels"
_CHANNELS = ("inner", "coupled")
"""What heads and neurons have not, or not in a form that Torch-Pruning would see, ranks these only."""


def _ranking(name: str, summary: str, meaning: str, *, missing: str = _UNSEEN, **more: Any) -> Method:
    choose = deferred("coprune.methods.baselines.rankings:choose")
    chosen = partial(choose, kind=name, meaning=meaning, missing=missing)
    return Method(name, summary, NoSettings, lambda _: (_IMPORTANCE(name),), chosen, **more)


def _baseline(
    name: str, summary: str, file: str, needs: Any, settings: type[Options] = NoSettings, **more: Any
) -> Method:
    """One whose choice is the function of its name in one of the files beside this one."""
    choose = deferred(f"coprune.methods.baselines.{file}:{name}")
    return Method(name, summary, settings, needs, choose, **more)


_heads = partial(_baseline, file="heads", units=("heads",))


class MichelSettings(Options):
    """Settings of ``michel``.

    Attributes:
        share: share of the batches that gradients are taken on; the paper: all.
    """

    share: Share = 1.0


RANDOM = _baseline("random", "any channels", "rankings", lambda _: ())
MAGNITUDE = _ranking(
    "magnitude",
    "largest L1 norm of all weights that belong to a channel (after arXiv 1608.08710)",
    "L1 norm of its weights",
)
MAGNITUDE_L2 = _ranking(
    "magnitude_l2",
    "largest L2 norm of all weights that belong to a channel (arXiv 2301.12900)",
    "L2 norm of its weights",
)
BN_SCALE = _ranking(
    "bn_scale",
    "largest scale of the batch norm behind it (arXiv 1708.06519)",
    "batch-norm scale",
    missing="no batch norm with a scale behind these channels",
    units=_CHANNELS,
)
FPGM = _ranking(
    "fpgm",
    "farthest from all other channels' weights (after arXiv 1811.00250)",
    "distance from the other channels' weights",
    units=_CHANNELS,
)
LAMP = _ranking(
    "lamp",
    "largest L2 norm in proportion to those that are no smaller (after arXiv 2010.07611)",
    "layer-adaptive magnitude",
    units=_CHANNELS,
)
TAYLOR = _ranking(
    "taylor",
    "largest first-order effect of its weights on the loss (after arXiv 1906.10771)",
    "first-order effect on the loss",
)
HESSIAN = _ranking(
    "hessian",
    "largest second-order effect of its weights on the loss (Optimal Brain Damage, NeurIPS 1989)",
    "second-order effect on the loss",
    units=_CHANNELS,
)
MICHEL = _heads(
    "michel",
    "heads that the loss is most sensitive to (arXiv 1905.10650)",
    needs=lambda settings: (SALIENCE(settings.share),),
    settings=MichelSettings,
    joint=True,
)
MEDOID = _heads(
    "medoid",
    "the central head of each of CAHP's clusters",
    needs=lambda settings: (SIGNATURES(settings.grid),),
    settings=ClusterSettings,
    has_knee=True,
    joint=True,
)
LAST_LAYERS = _heads(
    "last_layers", "heads of the first layers; the last layers' go first", needs=lambda _: (), joint=True
)
HEAD_MAGNITUDE = _heads(
    "head_magnitude",
    "heads whose part of the output projection has the largest L2 norm",
    needs=lambda _: (_MAGNITUDE(),),
    joint=True,
)
WANDA_SP = _baseline(
    "wanda_sp",
    "largest weights times norms of what they read (Wanda, arXiv 2306.11695, summed over a unit)",
    "inputs",
    lambda _: (_MOMENTS(),),
    recovery="none",  # the paper has none
)
FLAP = _baseline(
    "flap",
    "what its readers see vary most, in one order over all layers (arXiv 2312.11983)",
    "inputs",
    lambda _: (_MOMENTS(),),
    recovery="bias",
    joint=True,
)
