"""Class moments to measure speed on: drawn ones of any size, and those of a network on a thousand patterns.

There is no ImageNet in this project. ``drawn`` gives moments with classes that are mixes of a few themes, as
those of a trained network are; ``of_resnet50`` runs torchvision's ResNet-50 (random weights, batch norms
re-estimated, their scales and shifts drawn so that channels differ) on pictures of a thousand classes, each
of them a mix of smooth patterns with noise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from coprune.statistics.moments import Moments, batch_moments

THEMES = 24


def drawn(classes: int, units: int, *, seed: int = 0) -> Moments:
    """Means with ``THEMES`` directions of decreasing strength, variances that go with them; 50 a class."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    strength = torch.linspace(1, 0.2, THEMES, dtype=torch.float64)
    mix = normal(classes, THEMES) * strength
    mean = F.softplus(mix @ normal(THEMES, units) / 3)
    spread = 0.2 + 0.5 * mean * torch.exp(0.5 * normal(classes, units))
    count = torch.full((classes,), 50.0, dtype=torch.float64)
    return Moments(count, mean.unsqueeze(2), (spread.square() * 49).unsqueeze(2))


def of_resnet50(layers: list[str], *, classes: int, images: int, size: int) -> dict[str, Moments]:
    """Pooled moments of what some layers put out.

    Args:
        layers: module names.
        classes: how many.
        images: of each class.
        size: pixels a side.
    """
    import torchvision

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = torchvision.models.resnet50(weights=None)
    patterns = F.interpolate(
        torch.randn(THEMES, 3, 12, 12, generator=generator), size=(size, size), mode="bicubic"
    )
    mix = torch.randn(classes, THEMES, generator=generator) * torch.linspace(1, 0.2, THEMES)

    def pictures(labels: torch.Tensor) -> torch.Tensor:
        own = mix[labels] + 0.5 * torch.randn(len(labels), THEMES, generator=generator)
        x = torch.einsum("nk,kchw->nchw", own, patterns) / 3
        return x + 0.3 * torch.randn(x.shape, generator=generator)

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.3, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.4)
    order = torch.arange(classes).repeat(images)[torch.randperm(classes * images, generator=generator)]
    found: dict[str, Moments] = {}
    labels = order[:0]

    def read(module: torch.nn.Module, inputs: object, output: torch.Tensor, name: str) -> None:
        present, own = labels.unique(return_inverse=True)
        pooled = output.mean((2, 3)).unsqueeze(2)
        if name not in found:
            found[name] = Moments.none(classes, pooled.shape[1:])
        found[name].add_(batch_moments(pooled, own, classes=len(present)), present)

    with torch.no_grad():
        model.train()
        for _ in range(4):
            model(pictures(torch.randint(0, classes, (100,), generator=generator)))
        model.eval()
        for name in layers:
            hook = lambda m, i, o, name=name: read(m, i, o, name)  # noqa: E731
            model.get_submodule(name).register_forward_hook(hook)
        for labels in order.split(250):
            model(pictures(labels))
    return found
