"""A user's own loader: checked once, where it is given, and its batches checked and counted in every pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from coprune.data.collect import collect, has_class_numbers, has_targets
from coprune.data.reads import CLASSES, Reads
from coprune.data.source import Batch, batch_seed, check_finite_inputs, where_in
from coprune.data.trees import form_of
from coprune.distributed.world import own_part
from coprune.errors import UserError, kind_of, shown
from coprune.tracing.forward import Inputs, part_of, samples_in
from coprune.user_code import raised, within

_GIVE = "give batches of (inputs, labels): a DataLoader, or a list of them"

_TWICE = "it is read several times, so give a DataLoader, or a list of batches"

_END = object()


@dataclass
class LoaderSource:
    """A user's own iterable of batches, such as a ``torch.utils.data.DataLoader``.

    Its order, batch size and augmentation are the user's; ``seed`` only seeds torch's global
    generator before an epoch, which is what a shuffling DataLoader draws from.

    Attributes:
        loader: what was given.
        samples: how many it says it has.
        name: what messages call it, e.g. ``train=``.
        length: how many batches it said it has when it was given; None: it is asked whenever that is needed.
        examples: a sample ``[1, …]`` of every shape and type that was seen when it was given, by the number
            of its batch, counted from 0.
        highest: the highest class number seen then; −1 before, or without such.
        seen: samples of a whole pass; None before the first.
        given: batches of the passes of training that were others than its length says.
        reads: how what the loader hands out becomes inputs and targets.
    """

    loader: Iterable[Any]
    samples: int
    name: str = ""
    length: int | None = None
    examples: Mapping[int, Inputs] = field(default_factory=dict)
    highest: int = -1
    seen: int | None = None
    given: set[int] = field(default_factory=set)
    reads: Reads = CLASSES

    def __len__(self) -> int:
        return self.samples

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the passes so far."""
        if not self.given:
            return ()
        due = self.steps(0)
        more = f"has more than the {due} batches that its length says; the rest is not read"
        fewer = f"gave {min(self.given)} batches in a pass of training; its length says {due}"
        return (f"{self.name} {more if max(self.given) > due else fewer}",)

    def checked(self) -> Iterator[Batch]:
        """One pass: batches as they are read, and refused by their number.

        Raises:
            UserError: what is no batch (:func:`~coprune.data.collect.collect`), or what the loader raises.
        """
        name = self.name or "a loader"
        with _user_code(f"{name}: "):
            given = iter(self.loader)
        for number in itertools.count(1):
            with within(f"{name}, batch {number}"), _user_code():
                if (batch := next(given, _END)) is _END:
                    return
                pair = collect(batch, self.reads)
            yield pair

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """See :class:`~coprune.data.source.Source`; the batches are the loader's own.

        Raises:
            UserError: see :meth:`checked`; also no batches, more than its length says, or another number of
                samples than in an earlier pass.
        """
        most = length_of(self.loader, self.name)
        seen = 0
        for number, (inputs, targets) in enumerate(self.checked(), 1):
            if most is not None and number > most:
                raise UserError(f"{self.name}: gives more than the {most} batches that its length says")
            seen += samples_in(inputs)
            yield inputs, targets
        if not seen and self.seen is None and self.name:
            raise empty(self.name)
        if self.seen not in (None, seen):
            raise UserError(
                f"{self.name}: gave {seen or 'no'} samples in this pass, and {self.seen} in an earlier one; "
                "give the same in every pass"
            )
        self.seen = seen

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        """See :class:`~coprune.data.source.Source`."""
        length = len(self.loader) if self.length is None else self.length  # type: ignore[arg-type]
        return max(1, round(fraction * length))

    def epoch(
        self, batch_size: int, *, seed: int, epoch: int, fraction: float = 1.0, skip: int = 0
    ) -> Iterator[Batch]:
        """See :class:`~coprune.data.source.Source`; fewer batches than its length says are noted.

        Raises:
            UserError: see :meth:`checked`; also no batches.
        """
        torch.manual_seed(batch_seed(seed, epoch, -1))
        last, count = self.steps(batch_size, fraction), 0
        for count, (inputs, targets) in enumerate(self.checked(), 1):
            if count > last:
                break
            if count > skip:
                yield part_of(inputs, own_part(samples_in(inputs))), targets
        if not count:
            raise UserError(f"{self.name}: gave no batches in pass {epoch + 1} of training; {_TWICE}")
        if count < last or (count > last and fraction == 1):
            self.given.add(count)


def opened(given: Any, name: str, *, once: bool = False, reads: Reads = CLASSES) -> LoaderSource:
    """A user's loader, checked: what it is, and whether its first batch is one.

    Args:
        given: the argument's value.
        name: of the argument, as messages call it, e.g. ``train=``.
        once: it is read in one pass, so an iterator will do, and it needs no length.
        reads: what of a batch are inputs.

    Raises:
        UserError: no loader of batches, none that can be read twice, no length, no batches, or a first batch
            that is none or holds NaN.
    """
    if way := _way_to_a_loader(given):
        plain = isinstance(given, bool | int | float | str)
        value = f"={shown(given)}" if plain else f"= is {kind_of(given)}"
        raise UserError(f"{name.rstrip('=')}{value}; {way}")
    source = LoaderSource(given, 0, name, reads=reads)
    if once:
        return source
    if isinstance(given, Iterator):
        raise UserError(f"{name} is {kind_of(given)}, which is empty after one pass; {_TWICE}")
    source.length = length_of(given, name)
    samples = length_of(getattr(given, "dataset", given), name)
    if source.length is None or samples is None:
        raise UserError(
            f"{name}: a loader needs a length (len(loader)), and so does its data set; "
            "give a DataLoader over a data set with __len__, or a list of batches"
        )
    whole = isinstance(given, Sequence)
    pairs = list(source.checked()) if whole else _first_batch(source)
    source.samples = sum(samples_in(inputs) for inputs, _ in pairs) if whole else samples
    if not pairs or not source.length or not source.samples:
        raise empty(name)
    kinds: dict[str, tuple[int, Inputs]] = {}
    for number, (inputs, targets) in enumerate(pairs):
        with within(where_in(source, number)):
            check_finite_inputs(inputs)
        kinds.setdefault(form_of(inputs), (number, part_of(inputs, [0])))
        if reads.labelled:
            source.highest = max(source.highest, int(targets.max()))
    source.examples = dict(kinds.values())
    return source


def read_as(given: Sequence[Any], reads: Reads, task: str | None) -> Reads:
    """How batches are read: as a classifier's where that was asked for, or where they say it themselves.

    Args:
        given: loaders: of the samples that are decided by, and of others.
        reads: what of a batch are inputs.
        task: its name, where one was asked for.
    """
    if task not in (None, "classification"):
        return replace(reads, labelled=False)

    def first_has(what: Callable[[Any, Reads], bool], loader: Any) -> bool:
        """What the first batch of a loader has that can be read again; nothing is drawn."""
        if not isinstance(loader, Iterable) or isinstance(loader, Iterator):
            return False
        with torch.random.fork_rng(devices=[]), _user_code():
            return any(what(batch, reads) for batch in itertools.islice(loader, 1))

    deciding, *others = given
    if task is not None:
        # Nothing is decided by classes where there are none; others may still be judged by theirs.
        seen = isinstance(deciding, Sequence | DataLoader) and len(deciding) > 0
        return replace(reads, labelled=not seen or first_has(has_targets, deciding))
    plain = first_has(has_class_numbers, deciding)
    if not plain and first_has(has_targets, deciding):  # such as fractions beside the others' class numbers
        plain = any(first_has(has_class_numbers, other) for other in others)
    return replace(reads, labelled=plain)


def empty(name: str) -> UserError:
    """What to raise of a loader without batches, given by the argument of that name."""
    return UserError(f"{name}: the {name.rstrip('=')} loader is empty; {_GIVE}")


def length_of(given: Any, name: str) -> int | None:
    """How many batches a loader says it has; None when it does not.

    Raises:
        UserError: its own code raises.
    """
    if not hasattr(given, "__len__"):
        return None
    with _user_code(f"{name}: its length raises "):
        try:
            return len(given)
        except TypeError:  # of a DataLoader over an iterable data set
            return None


@contextmanager
def _user_code(what: str = "") -> Iterator[None]:
    """Whatever the user's own code raises inside (or DataLoader around it) is refused in one line.

    Args:
        what: how the line starts.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as cause:
        raise UserError(f"{what}{raised(cause)}") from cause


def _first_batch(source: LoaderSource) -> list[Batch]:
    """The first batch of a loader, in a list that is empty where there is none.

    Raises:
        UserError: there is none in a second pass: it hands out what is left of a single one.
    """
    loader = source.loader
    lasting = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    with torch.random.fork_rng(devices=[]):
        with _user_code(f"{source.name}: "):
            if not lasting and iter(loader) is iter(loader):
                raise UserError(f"{source.name} hands out the same iterator in every pass; {_TWICE}")
        passes = [list(itertools.islice(source.checked(), 1)) for _ in range(1 if lasting else 2)]
    if not passes[-1] and not lasting:
        again = " in a second pass" if passes[0] else ""
        raise UserError(f"{source.name}: gave no batches{again}; {_TWICE}")
    return passes[0]


def _way_to_a_loader(given: Any) -> str | None:
    """How to get to a loader from what is often given for one; None where it may be one."""
    array, iterable = Tensor | np.ndarray, isinstance(given, Iterable)
    nothing = given is None or isinstance(given, bool | int | float | complex | torch.nn.Module)
    count = "; calibration_samples= says how many samples" if isinstance(given, int) else ""
    by_number = not iterable and hasattr(type(given), "__getitem__")
    pair = isinstance(given, list | tuple) and len(given) == 2 and isinstance(given[0], array)
    # Without targets two batches of one shape may well be all there is.
    pair = pair and getattr(given[0], "shape", ())[1:] != getattr(given[1], "shape", ())[1:]
    of_batches = "give a list of such batches, or a DataLoader"
    ways = (
        (nothing, _GIVE + count),
        (isinstance(given, str | bytes | Path), f"{_GIVE}; data by a name is coprune.load_data(name)"),
        (by_number, "give a DataLoader over it, DataLoader(dataset, batch_size=128)"),
        (
            isinstance(given, array),
            "give batches of (inputs, labels), DataLoader(TensorDataset(x, y), batch_size=128)",
        ),
        (isinstance(given, Mapping), of_batches),
        (pair, f"if that is one batch of (inputs, labels), {of_batches}"),
        (not iterable and callable(given), "give what it returns, called"),
        (not iterable or isinstance(given, type), _GIVE),
    )
    return next((way for applies, way in ways if applies), None)
