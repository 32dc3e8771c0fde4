"""Rows of bad input: what a loader gives, what Python functions are given, what data files hold."""

from __future__ import annotations

import datetime
import json
from typing import Any

import numpy as np
import torch
from attack import Attack, World
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from digits import write_digits
from images import write_folders
from texts import tiny_tokenizer

LOADERS, ARGUMENTS, FILES = "Loaders", "Python arguments", "Data files"

GIVE = "give batches of (inputs, labels): a DataLoader, or a list of them"
TWICE = "it is read several times, so give a DataLoader, or a list of batches"


class Loader:
    """Batches with a length, that need not be true; what it yields depends on the pass."""

    def __init__(self, passes, length: int) -> None:
        self.passes, self.length, self.number = passes, length, 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self):
        self.number += 1
        yield from self.passes(self.number)


class Broken(Dataset):
    """Its seventh sample cannot be read."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, at: int):
        if at == 6:
            raise FileNotFoundError("seven.png is not there")
        return torch.zeros(1, 12, 12), at % 4


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(1, 12, 12), 0)] * 64)


def names(world: World) -> None:
    """What the rows use beside the world's own names."""
    batches, test = world.names["batches"], world.names["test"]
    images, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def replaced(at: int, change) -> list:
        """The batches, one of them changed; a loader as lazy as most are when ``at`` is negative."""
        return [change(x, y) if i == at else (x, y) for i, (x, y) in enumerate(batches)]

    def forever():
        while True:
            yield from batches

    with torch.no_grad():
        damaged = world.names["coprune"].load("run")
        next(damaged.parameters())[0] = float("nan")
    world.names.update(
        x=images,
        y=labels,
        replaced=replaced,
        lazy=lambda given: Loader(lambda number: given, len(given)),
        Loader=Loader,
        forever=forever,
        once=Loader(lambda number: batches if number == 1 else [], len(batches)),
        shrinking=Loader(lambda number: batches if number <= 6 else batches[:-1], len(batches)),
        endless=Loader(lambda number: forever(), len(batches)),
        damaged=damaged,
        Broken=Broken,
        Stream=Stream,
        DataLoader=DataLoader,
        TensorDataset=TensorDataset,
        date=datetime.date,
        Net=type(world.names["net"]),
        prune=lambda **given: world.names["coprune"].prune(
            world.names["net"],
            **{"train": batches, "eval": test, "keep_macs": 0.5, "method": "magnitude"} | given,
        ),
        recover=lambda **given: world.names["coprune"].recover_model(
            **{
                "model": world.names["pruned"],
                "teacher": world.names["net"],
                "calibration": batches,
                "plan": "run",
            }
            | given
        ),
    )


def loader(given: str, line: str, **more: Any) -> Attack:
    return Attack(LOADERS, given, line, makes=names, shown=shown(given), **more)


def argument(given: str, line: str, **more: Any) -> Attack:
    return Attack(ARGUMENTS, given, line, makes=names, shown=shown(given), **more)


def shown(given: str) -> str:
    """The expression as a user would write it."""
    said = given.replace("prune(", "coprune.prune(net, ", 1) if given.startswith("prune(") else given
    return said.replace("recover(", "coprune.recover_model(pruned, teacher=net, ", 1)


def one_of(**arrays: np.ndarray):
    """Prepares ``bad.npz``: digits with some arrays replaced."""

    def makes(world: World) -> None:
        write_digits(world.folder / "bad.npz", **arrays)

    return makes


def table_of_scores(world: World) -> None:
    """``scores.tsv``, with a number for a label, and a tokenizer."""
    rows = "".join(f"text number {i}\t{i % 50 / 10}\n" for i in range(100))
    (world.folder / "scores.tsv").write_text(f"text\tlabel\n{rows}")
    tiny_tokenizer().save_pretrained(world.folder / "tok")


def language_model(world: World) -> None:
    """``llama/``: the configuration of one with code of its own."""
    (world.folder / "llama").mkdir()
    (world.folder / "llama" / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["OurLlamaForCausalLM"]})
    )


def pictures(world: World) -> None:
    """``photos/``: folders of images, one of which is none."""
    write_folders(world.folder / "photos")
    picture = sorted((world.folder / "photos" / "train").rglob("*.*"))[5]
    picture.write_bytes(picture.read_bytes()[:40])


PRUNE = "coprune prune --model base --keep-macs 0.5 --out out --data"

ATTACKS: list[Attack] = [
    loader("prune(train=None)", f"train= is None; {GIVE}"),
    loader(
        "prune(train=TensorDataset(x, y))",
        "train= is a TensorDataset; give a DataLoader over it, DataLoader(dataset, batch_size=128)",
    ),
    loader(
        "prune(eval=(x, y))",
        "eval= is a tuple of 2; if that is one batch of (inputs, labels), give a list of such batches, or a "
        "DataLoader",
    ),
    loader(
        "prune(train=x)",
        "train= is a Tensor [240, 1, 12, 12]; give batches of (inputs, labels), "
        "DataLoader(TensorDataset(x, y), batch_size=128)",
    ),
    loader(
        "prune(calibration={'x': x})", "calibration= is a dict; give a list of such batches, or a DataLoader"
    ),
    loader(
        "prune(train='npz:digits.npz')",
        f"train=npz:digits.npz; {GIVE}; data by a name is coprune.load_data(name)",
    ),
    loader("prune(train=forever)", "train= is a function; give what it returns, called"),
    loader(
        "prune(train=list(zip(x, y)))",
        "train=, batch 1: a single label, so this is a sample and no batch; give a DataLoader over the "
        "samples, "
        "DataLoader(dataset, batch_size=128)",
    ),
    loader(
        "prune(train=(b for b in batches))",
        f"train= is a generator, which is empty after one pass; {TWICE}",
    ),
    loader("prune(train=once)", f"train=: gave no batches; {TWICE}"),
    loader(
        "prune(eval=shrinking)",
        "eval=: gave 224 samples in this pass, and 240 in an earlier one; give the same in every pass",
    ),
    loader("prune(eval=endless)", "eval=: gives more than the 15 batches that its length says"),
    loader(
        "prune(eval=DataLoader(Stream(), batch_size=8))",
        "eval=: a loader needs a length (len(loader)), and so does its data set; give a DataLoader over "
        "a data "
        "set with __len__, or a list of batches",
    ),
    loader(
        "prune(train=DataLoader(Broken(), batch_size=4))",
        "train=, batch 2: FileNotFoundError: seven.png is not there (…attacks_loaders.py, line …)",
    ),
    loader(
        "prune(eval=DataLoader(Broken(), batch_size=4, num_workers=1))",
        "eval=, batch 2: FileNotFoundError: seven.png is not there (…attacks_loaders.py, line …)",
    ),
    loader("prune(eval=[])", f"eval=: the eval loader is empty; {GIVE}"),
    loader(
        "prune(train=replaced(7, lambda x, y: (x[:0], y[:0])))",
        "train=, batch 8: no samples; drop empty batches",
    ),
    loader(
        "prune(eval=lazy(replaced(14, lambda x, y: (x[:0], y[:0]))))",
        "eval=, batch 15: no samples; drop empty batches",
    ),
    loader(
        "prune(train=replaced(3, lambda x, y: (x, y[:5])))",
        "train=, batch 4: 16 samples but 5 labels; give one label a sample",
    ),
    loader(
        "prune(calibration=replaced(3, lambda x, y: (x, [f'class {i}' for i in y])))",
        "calibration=, batch 4: labels are class numbers [B], not a list of 16 ('class …', …); number the "
        "classes from 0",
    ),
    loader(
        "prune(train=replaced(0, lambda x, y: (x, None)))",
        "train=: some of the loader's batches have targets and some have none; give them to all",
    ),
    loader(
        "prune(train=replaced(2, lambda x, y: (x, [date(2020, 1, 1)] * 16)))",
        "train=, batch 3: labels are class numbers [B], not a list of 16; number the classes from 0",
    ),
    loader(
        "prune(eval=lazy(replaced(2, lambda x, y: (x, y - 100))))",
        "eval=, batch 3: negative label -100; labels count from 0",
    ),
    loader(
        "prune(train=batches[:3] + [(x[:16], y[:16] + 9)], calibration=batches)",
        "train=: label 12 is outside the model's 4 classes (0…3); give …",
    ),
    loader(
        "prune(eval=lazy(replaced(9, lambda x, y: (x, y + 0.5))))",
        "eval=, batch 10: labels are class numbers, and these are fractions; say task=regression",
    ),
    loader(
        "prune(eval=lazy(replaced(9, lambda x, y: (x.repeat(1, 3, 1, 1), y))))",
        "eval=, batch 10: the model does not take inputs [16, 3, 12, 12]: …expected input[16, 3, 12, 12] "
        "to have "
        "1 channels, but got 3 channels instead",
    ),
    loader(
        "prune(train=replaced(9, lambda x, y: (x[..., :6], y)))",
        "train=: the loader's batches are of several shapes, [B, 1, 12, 6] and [B, 1, 12, 12] among "
        "them; samples "
        "that are held together need one",
    ),
    loader(
        "prune(eval=[((255 * x).byte(), y) for x, y in test])",
        "eval=: the model does not take inputs [1, 1, 12, 12]: …; it takes float32, and these are uint8: "
        "give "
        "x.to(torch.float32), scaled as in training (images / 255?)",
    ),
    loader(
        "prune(calibration=replaced(4, lambda x, y: (x / 0, y)))",
        "calibration=: NaN or Inf in 16 of 240 samples; clean or drop them",
    ),
    loader(
        "prune(train=replaced(4, lambda x, y: (np.array([object()] * 16), y)))",
        "train=, batch 5: inputs: an ndarray [16] of objects, and no tensor; give one tensor [B, …], or "
        "a dict of "
        "named ones",
    ),
    loader(
        "prune(train=[{'pixels': x, 'labels': y} for x, y in batches[:1]] + [{'pixels': batches[1][0]}])",
        "train=, batch 2: named tensors without 'labels' (pixels); add them, or give (inputs, labels) pairs",
    ),
    loader(
        "recover(calibration=[(x.repeat(1, 3, 1, 1), y)])",
        "calibration=: the model does not take inputs [1, 3, 12, 12]: …",
    ),
    loader(
        "recover(calibration=TensorDataset(x, y))", "calibration= is a TensorDataset; give a DataLoader …"
    ),
    argument(
        "prune(calibration_samples='all')", "calibration_samples=all: a whole number from 1 to 1000000000"
    ),
    argument("prune(distill='yes', finetune_epochs=1)", "distill=yes: a number in [0, 1]"),
    argument(
        "prune(match=-1, finetune_epochs=1)", "match=-1: a finite number of at least 0; did you mean 0?"
    ),
    argument(
        "prune(skip=next(net.children()))",
        "skip: a Conv2d; give names of layers, as in named_modules()",
    ),
    argument("prune(only=3)", "only: an int; give names of layers, as in named_modules()"),
    argument("prune(units=[None])", "units: None; give kinds, such as 'heads'"),
    argument("prune(device='gpu')", "device=gpu: known are auto, cpu, cuda"),
    argument("prune(pruning_ratio=0.5)", "pruning_ratio: here it is keep_macs or keep_units"),
    argument(
        "prune(batch_size=4)",
        "batch_size=4 is of a training that was not asked for; it needs finetune_epochs",
    ),
    argument(
        "prune(keep_mac=0.5)",
        "keep_mac is no argument, nor an option of method 'magnitude'; did you mean keep_macs, …?",
    ),
    argument(
        "coprune.prune(Net, train=batches, eval=test)",
        "model is the class …; give a network of it, such as …()",
    ),
    argument(
        "coprune.prune(net.state_dict(), train=batches, eval=test)",
        "model is an OrderedDict; weights alone are no network; load them into one, "
        "net.load_state_dict(...), and "
        "give that",
    ),
    argument(
        "recover(model='run')",
        "model is a str; give the network: coprune.load(run) reads that of a run folder",
    ),
    argument("recover(model=damaged)", "model: NaN or Inf in '…'; the training diverged or the file is bad"),
    argument(
        "recover(teacher=damaged)", "teacher: NaN or Inf in '…'; the training diverged or the file is bad"
    ),
    argument("recover(seed=-1)", "seed=-1: a whole number from 0 to 18446744073709551615; did you mean 0?"),
    argument("recover(plan='plan.json')", "plan.json: no such plan"),
    argument("recover(plan={'kept': 3})", "plan is a dict that is no plan: method: Field required"),
    argument("coprune.load(None)", "run is None; give the path of a folder"),
    argument("coprune.load(b'run')", "run is a bytes; give the path of a folder"),
    argument("coprune.load('run', model=Net)", "model is the class …; give a network of it, such as …()"),
    Attack(
        FILES,
        f"{PRUNE} npz:bad.npz",
        "coprune: npz:bad.npz, mean: <U3; needs a number for each channel",
        makes=one_of(mean=np.array(["0.5"]), std=np.array([1.0])),
    ),
    Attack(
        FILES,
        f"{PRUNE} npz:bad.npz",
        "coprune: npz:bad.npz, y_train: datetime64[D] [240]; labels are integers [N]",
        makes=one_of(y_train=np.array(["2020-01-01"] * 240, dtype="datetime64[D]")),
        shown=f"{PRUNE} npz:dates.npz",
    ),
    Attack(
        FILES,
        f"{PRUNE} npz:bad.npz",
        "coprune: npz:bad.npz, train: no samples; give at least two of each class",
        makes=one_of(x_train=np.zeros((0, 1, 12, 12), np.uint8), y_train=np.zeros(0, np.int64)),
        shown=f"{PRUNE} npz:empty.npz",
    ),
    Attack(
        FILES,
        f"{PRUNE} npz:bad.npz",
        "coprune: npz:bad.npz: not a readable .npz archive (Object arrays cannot be loaded when "
        "allow_pickle=False); save numbers, not Python objects",
        makes=one_of(y_train=np.array([None] * 240)),
        shown=f"{PRUNE} npz:objects.npz",
    ),
    Attack(
        FILES,
        f"{PRUNE} tsv:scores.tsv --tokenizer tok --task classification",
        "coprune: tsv:scores.tsv: labels such as 0.1 are numbers that are not whole, so they are "
        "measured and no classes; say --task regression, or give each range of them a name",
        makes=table_of_scores,
    ),
    Attack(
        FILES,
        "coprune train --model hf:llama --data npz:digits.npz --out out",
        "coprune: model 'hf:llama' names the class OurLlamaForCausalLM, which transformers … does not have; "
        "only its own classes are opened: build it in a function and give that: python:module:factory",
        makes=language_model,
    ),
    Attack(
        FILES,
        f"{PRUNE.replace('base', 'coprune:resnet20')} imagefolder:photos@12",
        "coprune: photos/train/…: not a readable image (…); replace or remove it",
        makes=pictures,
    ),
]
