"""What a user hands to a Python function: taken if it is of the right kind, else refused by its name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from coprune.errors import UserError, first_mistake, kind_of, shown
from coprune.plan import Plan


def module(given: object, name: str) -> nn.Module:
    """A network.

    Raises:
        UserError: says what was given instead, and what to do with it.
    """
    if isinstance(given, nn.Module):
        return given
    if isinstance(given, type):
        way = f"give a network of it, such as {given.__name__}()"
    elif isinstance(given, Mapping):
        way = "weights alone are no network; load them into one, net.load_state_dict(...), and give that"
    elif isinstance(given, str | os.PathLike):
        way = "give the network: coprune.load(run) reads that of a run folder"
    elif isinstance(getattr(given, "model", None), nn.Module):
        way = "give its .model"
    elif callable(given):
        way = "give the network that it returns"
    else:
        way = "give a torch.nn.Module"
    raise UserError(f"{name} is {kind_of(given)}; {way}")


def folder(given: object, name: str) -> Path:
    """A path.

    Raises:
        UserError: what can be none.
    """
    if not isinstance(given, str | os.PathLike) or not os.fspath(given):
        what = "an empty text" if given == "" else kind_of(given)
        raise UserError(f"{name} is {what}; give the path of a folder")
    path = Path(os.fsdecode(given))
    try:
        os.lstat(path)
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as cause:
        raise UserError(
            f"{name}={shown(str(path))} can be no path ({getattr(cause, 'strerror', cause)})"
        ) from cause
    return path


def words(given: str | Iterable[str] | None, name: str) -> tuple[str, ...]:
    """Names: one, several, or none.

    Raises:
        UserError: anything else, such as layers instead of their names.
    """
    if given is None:
        return ()
    alone = isinstance(given, str | bytes | nn.Module) or not isinstance(given, Iterable)
    found: tuple[Any, ...] = (given,) if alone else tuple(given)
    for word in found:
        if not isinstance(word, str):
            way = "kinds, such as 'heads'" if name == "units" else "names of layers, as in named_modules()"
            raise UserError(f"{name}: {kind_of(word)}; give {way}")
    return found


def plan(given: object) -> Plan | None:
    """A plan: itself, its JSON, its file, or the folder of its run.

    Raises:
        UserError: anything else, or a file or JSON that is none.
    """
    if given is None or isinstance(given, Plan):
        return given
    if isinstance(given, str | os.PathLike):
        path = folder(given, "plan")
        return Plan.load(path / "plan.json" if path.is_dir() else path)
    if isinstance(given, Mapping):
        try:
            return Plan.model_validate(given)
        except ValidationError as cause:
            what = f"plan is a {type(given).__name__} that is no plan"
            raise UserError(f"{what}: {first_mistake(cause)}") from cause
    way = "give its .plan" if isinstance(getattr(given, "plan", None), Plan) else "give a Plan, or its file"
    raise UserError(f"plan is {kind_of(given)}; {way}")
