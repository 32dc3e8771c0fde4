"""Rows of bad input: samples that cannot judge, and figures that mean nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from attack import Attack, World

JUDGES = "Samples that judge"
CHANCE = "A base at chance"
ALIKE = "Calibration samples without content"
CUT = "Asked for and not to be had"

PRUNE = "coprune prune --model base --out x --data npz:"
DROP = "--max-drop 5 --validation"
COMPARE = "coprune compare --model base --methods magnitude --out x --data npz:"
RECOVER = "coprune recover --model run --teacher base --out x --data npz:"
AT_CHANCE = (
    "the unpruned model is right on {} of 120 held-out samples, and always answering the commonest class on "
    "{}: what it loses means nothing; train it, check its weights, labels and normalisation, or "
    "go on with {}"
)
SAME = "all 240 are alike or without content; give samples such as the model meets, or go on with"


def archive(**changes: Callable[[np.ndarray], np.ndarray]) -> Callable[[World], None]:
    """Writes ``odd.npz``: the digits, arrays changed; ``x_val`` and ``y_val`` come of the held-out ones."""

    def write(world: World) -> None:
        arrays = dict(np.load(world.folder / "digits.npz"))
        for name, change in changes.items():
            arrays[name] = change(arrays[name.replace("val", "test")])
        np.savez(world.folder / "odd.npz", **arrays)

    return write


def black(images: np.ndarray) -> np.ndarray:
    """As many images without content."""
    return np.zeros_like(images)


def plain(images: np.ndarray) -> np.ndarray:
    """Images of one brightness each."""
    return np.zeros_like(images) + (np.arange(len(images)) % 200).astype(np.uint8).reshape(-1, 1, 1, 1)


def nearly(images: np.ndarray) -> np.ndarray:
    """One image, and noise that nobody sees."""
    return images[:1] + np.random.default_rng(0).integers(0, 3, images.shape, dtype=np.uint8)


def holed(images: np.ndarray) -> np.ndarray:
    """One pixel is no number."""
    found = images.astype(np.float32)
    found[3, 0, 0, 0] = np.nan
    return found


ATTACKS: list[Attack] = [
    Attack(
        JUDGES,
        f"{PRUNE}digits.npz {DROP} 120",
        "coprune: --validation 120: npz:digits.npz has 120 held-out samples; give a number between 0 "
        "and that, e.g. 60",
    ),
    Attack(JUDGES, f"{PRUNE}digits.npz {DROP} 0", "coprune: --validation 0: npz:digits.npz has 120 …"),
    Attack(
        JUDGES,
        f"{RECOVER}digits.npz --validation 999",
        "coprune: --validation 999: npz:digits.npz has 120 held-out …",
    ),
    Attack(
        JUDGES,
        f"{COMPARE}digits.npz --validation 999",
        "coprune: --validation 999: npz:digits.npz has 120 held-out …",
    ),
    Attack(JUDGES, f"{PRUNE}digits.npz {DROP} 60.5", "coprune: unknown data '60.5'; known: cifar10, …"),
    Attack(
        JUDGES,
        f"{PRUNE}digits.npz {DROP} fashion-mnits",
        "coprune: unknown data 'fashion-mnits'; did you…",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}digits.npz {DROP} sst5:trees",
        "coprune: --validation sst5:trees: the data are images, and so must these be",
    ),
    Attack(JUDGES, f"{PRUNE}digits.npz {DROP} npz:no.npz", "coprune: npz:no.npz: no such file: no.npz"),
    Attack(
        JUDGES,
        f"{PRUNE}digits.npz {DROP} npz:digits.npz",
        "coprune: --validation: its samples are the held-out ones of npz:digits.npz; give others",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}digits.npz {DROP} npz:odd.npz",
        "coprune: npz:digits.npz, validation: training samples are [1, 12, 12] but validation samples are "
        "[1, 8, 8]; they must have one shape",
        makes=archive(x_train=lambda x: x[..., :8, :8], x_test=lambda x: x[..., :8, :8]),
        shown=f"{PRUNE}digits.npz {DROP} npz:odd.npz (of 8×8 pixels)",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}odd.npz --max-drop 5",
        "coprune: npz:odd.npz: y_val missing; needs x_train, y_train, x_test, y_test (found: …",
        makes=archive(x_val=lambda x: x + 1),
        shown=f"{PRUNE}odd.npz --max-drop 5 (x_val without y_val)",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}odd.npz --max-drop 5",
        "coprune: npz:odd.npz, validation: label 7 is outside its 4 classes",
        makes=archive(x_val=lambda x: x + 1, y_val=lambda y: y + 4),
        shown=f"{PRUNE}odd.npz --max-drop 5 (y_val of other classes)",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}odd.npz --max-drop 5",
        "coprune: npz:odd.npz, validation: NaN or Inf in 1 of 120 samples; clean or drop them",
        makes=archive(x_val=holed, y_val=lambda y: y),
        shown=f"{PRUNE}odd.npz --max-drop 5 (NaN in x_val)",
    ),
    Attack(
        JUDGES,
        f"{PRUNE}odd.npz --max-drop 5",
        "coprune: --validation: its samples are the held-out ones of npz:odd.npz; give others",
        makes=archive(x_val=lambda x: x, y_val=lambda y: y),
        shown=f"{PRUNE}odd.npz --max-drop 5 (x_val is x_test)",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, validation=test, max_drop=5)",
        "validation= and eval= are one data set; give other samples to judge on",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, validation=batches, max_drop=5)",
        "validation= and train= are one data set; give other samples to judge on",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, validation=[(torch.rand(8, 1, 9, 9), "
        "torch.arange(8) % 4)], max_drop=5)",
        "validation= gives samples of [1, 9, 9], not of [1, 12, 12] as the others do",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, validation=[], max_drop=5)",
        "…validation…empty…",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, validation=500, max_drop=5)",
        "validation=500; give batches of (inputs, labels): a DataLoader, or a list of them…",
    ),
    Attack(
        JUDGES,
        "coprune.prune(net, train=batches, eval=test, max_drop=5, finetune_epochs=1)",
        "max_drop is judged on calibration samples, and fine-tuning would learn them by heart where they are "
        "part of train; give validation= a loader of other samples",
    ),
    Attack(
        CHANCE,
        "coprune prune --model coprune:resnet20 --data npz:digits.npz --keep-macs 0.5 --out x",
        f"coprune: {AT_CHANCE.format('25.00%', '25.00%', '--force')}",
    ),
    Attack(
        CHANCE,
        "coprune compare --model coprune:resnet20 --data npz:digits.npz --methods magnitude --out x",
        f"coprune: {AT_CHANCE.format('25.00%', '25.00%', '--force')}",
    ),
    Attack(
        CHANCE,
        f"{PRUNE}odd.npz --keep-macs 0.5",
        f"coprune: {AT_CHANCE.format('0.00%', '25.00%', '--force')}",
        makes=archive(y_test=lambda y: (y + 1) % 4),
        shown=f"{PRUNE}odd.npz --keep-macs 0.5 (labels in another order)",
    ),
    Attack(
        CHANCE,
        f"{PRUNE}odd.npz --keep-macs 0.5",
        f"coprune: {AT_CHANCE.format('…', '50.00%', '--force')}",
        makes=archive(y_test=lambda y: np.arange(len(y)) // 2 % 2),
        shown=f"{PRUNE}odd.npz --keep-macs 0.5 (labels that have nothing to do with the images)",
    ),
    Attack(
        CHANCE,
        f"{COMPARE}odd.npz",
        f"coprune: {AT_CHANCE.format('25.00%', '25.00%', '--force')}",
        makes=archive(x_test=black),
        shown=f"{COMPARE}odd.npz (held-out images are black)",
    ),
    Attack(
        CHANCE,
        "coprune.prune(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), "
        "nn.Flatten(), nn.Linear(512, 4)), train=batches, "
        "eval=[(x, y * 0 + i % 4) for i, (x, y) in enumerate(test)])",
        "the unpruned model is right on … held-out samples, …; train it, check its weights, labels and "
        "normalisation, or go on with force",
        shown="coprune.prune(untrained, train=batches, eval=test)",
    ),
    *(
        Attack(
            ALIKE,
            f"{PRUNE}odd.npz --keep-macs 0.5",
            f"coprune: calibration samples: {SAME} --force",
            makes=archive(x_train=change),
            shown=f"{PRUNE}odd.npz --keep-macs 0.5 (training images {what})",
        )
        for what, change in {
            "are black": black,
            "are of one brightness each": plain,
            "are one image with noise": nearly,
            "are one image": lambda x: np.repeat(x[:1], len(x), 0),
        }.items()
    ),
    Attack(
        ALIKE,
        f"{COMPARE}odd.npz",
        f"coprune: calibration samples: {SAME} --force",
        makes=archive(x_train=black),
        shown=f"{COMPARE}odd.npz (training images are black)",
    ),
    Attack(
        ALIKE,
        "coprune.prune(net, train=batches, eval=test, keep_macs=0.5, "
        "calibration=[(x * 0, y) for x, y in batches])",
        "calibration samples: all … are alike or without content; give samples such as the model meets, or "
        "go on with force",
    ),
    Attack(
        ALIKE,
        "coprune.recover_model(pruned, teacher=net, calibration=[(x * 0 + 1, y) for x, y in batches])",
        "calibration samples: all … are alike or without content; give samples such as the model meets…",
    ),
    Attack(
        CUT,
        f"{PRUNE}digits.npz --keep-macs 0.5 --calibration 500 --recovery none --latency-batches 1",
        "note: 240 calibration samples, all of the training part, not 500",
        leaves=("x",),
        notes=True,
    ),
    Attack(
        CUT,
        f"{PRUNE}digits.npz --keep-macs 0.5 --calibration 20 --recovery none --latency-batches 1",
        "note: 20 calibration samples are few; 30 or more make statistics and recovery surer",
        leaves=("x",),
        notes=True,
    ),
]
