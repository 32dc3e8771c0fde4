"""Which model names there are. Knows nothing of torch, so that a mistyped one is answered at once.

A name is ``scheme:rest``, such as ``coprune:resnet20``, ``hf:DIR``, or the folder of an earlier run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coprune.errors import UserError, near_matches
from coprune.user_factory import PYTHON

NETWORKS: dict[str, tuple[str, tuple[int, ...]]] = {
    "resnet20": ("SmallImageResNet", (3,)),
    "resnet56": ("SmallImageResNet", (9,)),
    "resnet110": ("SmallImageResNet", (18,)),
    "vgg16_bn": ("SmallImageVGG", (3,)),
    "vgg19_bn": ("SmallImageVGG", (4,)),
    "mobilenet_v2": ("SmallImageMobileNetV2", ()),
    "densenet40": ("SmallImageDenseNet", ()),
}
"""``coprune:`` name → class of :mod:`coprune.models.small_images`, and its depth."""

HUBS = ("torchvision", "timm", "pytorchcv")
"""Libraries whose networks go by ``library:NAME``."""

HF, ULTRALYTICS = "hf:", "ultralytics:"
"""Begins the name of a 🤗 transformers checkpoint; of a network of Ultralytics."""

BUNDLED = Path(__file__).parent / "bundled"


@dataclass(frozen=True)
class ModelSource:
    """What builds a model: a name and keyword arguments (JSON values only)."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def bundled_names() -> list[str]:
    """Names of the trained models that come with the package, as ``coprune:NET@DATA``."""
    return sorted(f"coprune:{p.parent.name}" for p in BUNDLED.glob("*/model.json"))


def brings_weights(name: str, weights: str | None) -> bool:
    """Whether a named model, or what is loaded into it, has been trained."""
    return bool(weights) or "@" in name or name.startswith(HF) or is_yolo_file(name) or Path(name).is_dir()


def is_yolo_file(name: str) -> bool:
    """Whether a name is that of a trained network of Ultralytics, and not of a configuration."""
    return name.startswith(ULTRALYTICS) and name.endswith(".pt")


def check_known(name: str) -> None:
    """Refuse a name that is none, as far as can be said without importing anything large.

    Raises:
        UserError: with near matches.
    """
    scheme, colon, rest = name.partition(":")
    own = scheme == "coprune" and rest in NETWORKS
    other = bool(colon) and (scheme in HUBS or name.startswith((HF, PYTHON, ULTRALYTICS)))
    if not (own or other or name in bundled_names() or Path(name).is_dir()):
        raise unknown(name)


def unknown(name: str) -> UserError:
    """The error that refuses a name, with near matches."""
    if "/" in name and ":" not in name:
        return UserError(f"model '{name}': no such run folder")
    known = [f"coprune:{network}" for network in NETWORKS]
    if not name.startswith("coprune:"):
        known += [*(f"{hub}:NAME" for hub in HUBS), f"{PYTHON}package.module:factory", f"{HF}DIR"]
        known += [f"{ULTRALYTICS}FILE.pt", f"{ULTRALYTICS}NAME.yaml", "a run folder"]
    return UserError(f"unknown model '{name}'; {near_matches(name, known)}")
