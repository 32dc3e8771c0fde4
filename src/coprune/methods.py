"""The registry of selection methods: one line a method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from coprune.baselines import RIVALS
from coprune.baselines.heads import HEAD_RIVALS
from coprune.cahp import CAHP
from coprune.complementary import COMPLEMENTARY
from coprune.cosep import COSEP
from coprune.errors import UserError, near_matches, refused
from coprune.select import Method

METHODS: dict[str, Method] = {m.name: m for m in (COMPLEMENTARY, COSEP, CAHP, *RIVALS, *HEAD_RIVALS)}


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: unknown, with near matches.
    """
    if name not in METHODS:
        raise UserError(f"unknown method '{name}'; {near_matches(name, METHODS)}")
    return METHODS[name]


def method_settings(method: Method, given: Mapping[str, Any]) -> BaseModel:
    """A method's settings from named options.

    Raises:
        UserError: an option the method does not have, or a value it refuses.
    """
    known = method.settings.model_fields
    for name in given:
        if name not in known:
            raise UserError(
                f"--{name.replace('_', '-')} is no option of method '{method.name}'"
                + (f"; it has {', '.join(sorted(known))}" if known else "; it has none")
            )
    try:
        return method.settings(**given)
    except ValidationError as cause:
        raise refused(cause) from cause
