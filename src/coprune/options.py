"""Options are the described fields of settings: name, type, default and help stand there, and nowhere else.

The command line, job files, Python arguments and the names in messages all come from these fields. Settings
inside settings are flat to the user: see :class:`Nested`. Knows nothing of torch.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar, get_args, get_origin, runtime_checkable

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from coprune.errors import UserError, refused, setting

S = TypeVar("S", bound="Options")
T = TypeVar("T")


class Options(BaseModel):
    """Settings whose described fields are options; the class's ``title`` is the heading they stand under."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    help_words: ClassVar[Mapping[str, str]] = {}
    """What ``{words}`` in the help stand for, where it is made of a registry."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Every field's help is its line under ``Attributes:`` of the class."""
        text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
        for name, help in re.findall(r"^    (\w+): (.*(?:\n     .*)*)", text, flags=re.MULTILINE):
            for word, meaning in cls.help_words.items():
                help = help.replace(f"{{{word}}}", meaning)
            cls.model_fields[name].description = " ".join(help.split())
        if sys.flags.optimize > 1:  # without docstrings every field is an option, and has no help
            for info in cls.model_fields.values():
                info.description = info.description or " "
        for base in cls.__mro__[1:]:  # a default may be another without its being said anew
            for name, info in getattr(base, "model_fields", {}).items():
                cls.model_fields[name].description = cls.model_fields[name].description or info.description


@dataclass(frozen=True)
class Named:
    """Metadata of a field whose option has another name."""

    option: str


@dataclass(frozen=True)
class Reads:
    """Metadata of a field that names something to read.

    Attributes:
        what: a ``path``, a ``model`` or ``data``.
        kind: what must be there, for the message that it is not; ``""``: nothing need be there.
    """

    what: str
    kind: str = ""


PATH, MODEL, DATA = Reads("path"), Reads("model"), Reads("data")


@dataclass(frozen=True)
class Option:
    """One thing that can be asked for.

    Attributes:
        name: as a Python argument; the command line has dashes in it.
        help: one line.
        kind: the type of its value, with its bounds.
        default: of the field; None where there is none.
        required: whether it must be given.
        heading: what it stands under.
        reads: whether it names a ``path``, a ``model`` or ``data`` to read.
    """

    name: str
    help: str
    kind: Any
    default: Any = None
    required: bool = False
    heading: str = ""
    reads: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether it is given without a value."""
        return self.kind is bool

    @property
    def is_path(self) -> bool:
        """Whether it names a file or folder."""
        return self.reads == "path" or Path in _parts(self.kind)

    @property
    def is_list(self) -> bool:
        """Whether it has several values."""
        return tuple in (get_origin(part) for part in _parts(self.kind))

    @property
    def is_number(self) -> bool:
        """Whether a value of it is a number."""
        return bool({int, float} & set(_parts(self.kind)))


def _parts(kind: Any) -> list[Any]:
    return [kind, *(part for inner in get_args(kind) for part in _parts(inner))]


@runtime_checkable
class Spread(Protocol):
    """Metadata of a field that several options make together, or none."""

    def options(self) -> Mapping[str, Option]:
        """The options, by name."""
        ...

    def made(self, values: Mapping[str, Any]) -> Any:
        """The field's value.

        Args:
            values: all that was given, also for other fields.

        Raises:
            UserError: a value that is refused.
        """
        ...


@dataclass(frozen=True)
class Nested:
    """Settings inside settings: their fields are options among those around them.

    Attributes:
        settings: their type.
        prefix: before the names of its fields.
        bare: fields whose options are named without the prefix, since others share them.
        fields: those that are options; all that have help when empty.
        make: (fields given, all options given) → the value; None: the settings themselves.
    """

    settings: type[Options]
    prefix: str = ""
    bare: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    make: Callable[[dict[str, Any], Mapping[str, Any]], Any] | None = None

    def name(self, of: str) -> str:
        """What the option of a field is called."""
        return of if of in self.bare else f"{self.prefix}{of}"

    def options(self) -> dict[str, Option]:
        """See :class:`Spread`."""
        if not self.fields:
            return options_of(self.settings)
        heading = str(self.settings.model_config.get("title") or "")
        known = self.settings.model_fields
        return {
            self.name(of): Option(
                self.name(of), known[of].description or "", known[of].annotation, heading=heading
            )
            for of in self.fields
        }

    def made(self, values: Mapping[str, Any]) -> Any:
        """See :class:`Spread`."""
        if not self.fields and self.make is None:
            return made(self.settings, values)
        known = self.fields or self.settings.model_fields
        given = {of: values[self.name(of)] for of in known if values.get(self.name(of)) is not None}
        if self.make:
            return self.make(given, values)
        return valid(self.settings, given, named=self.name)


def options_of(settings: type[Options]) -> dict[str, Option]:
    """The options that settings are made from, by name, in the order of the fields."""
    found: dict[str, Option] = {}
    for name, info in settings.model_fields.items():
        spread = _spread(info)
        if spread is not None:
            found |= {k: option for k, option in spread.options().items() if k not in found}
        elif info.description:
            option, reads = option_name(name, info), of_kind(info, Reads)
            found[option] = Option(
                option,
                info.description,
                info.annotation,
                None if info.is_required() else info.get_default(),
                info.is_required(),
                _heading(settings, name),
                reads.what if reads else "",
            )
    return found


def option_name(name: str, info: FieldInfo) -> str:
    """What the option of a field is called."""
    named = of_kind(info, Named)
    return named.option if named else name


def of_kind(info: FieldInfo, kind: type[T]) -> T | None:
    """The metadata of a kind that a field has; None where it has none."""
    return next((part for part in info.metadata if isinstance(part, kind)), None)


def _spread(info: FieldInfo) -> Spread | None:
    kind = info.annotation
    nested = Nested(kind) if isinstance(kind, type) and issubclass(kind, Options) else None
    return of_kind(info, Spread) or nested  # type: ignore[type-abstract]


def _heading(settings: type[Options], name: str) -> str:
    homes = [c for c in settings.__mro__ if issubclass(c, BaseModel) and name in c.model_fields]
    return str(homes[-1].model_config.get("title") or "")


def made(settings: type[S], values: Mapping[str, Any]) -> S:
    """Settings from options.

    Args:
        settings: their type.
        values: option → value; None: not given. Other names are left alone.

    Raises:
        UserError: a value that is refused, under the option's name.
    """
    fields: dict[str, Any] = {}
    called = {name: option_name(name, info) for name, info in settings.model_fields.items()}
    for name, info in settings.model_fields.items():
        spread = _spread(info)
        if spread is not None:
            fields[name] = spread.made(values)
        elif values.get(called[name]) is not None:
            fields[name] = values[called[name]]
    return valid(settings, fields, named=lambda name: called.get(name, name))


def valid(settings: type[S], values: Mapping[str, Any], *, named: Callable[[str], str] = str) -> S:
    """Settings from their fields.

    Args:
        settings: their type.
        values: field → value.
        named: a field's name → the option's.

    Raises:
        UserError: e.g. ``--schedule sine: Input should be 'cosine', 'onecycle', …``.
    """
    try:
        return settings(**values)
    except ValidationError as cause:
        raise refused(cause, named=named) from cause


def checked(name: str, value: object, kind: Any) -> Any:
    """A value as the type that it must have.

    Args:
        name: of the option.
        value: what was given.
        kind: a type, a ``Literal`` or one of :mod:`coprune.bounds`.

    Raises:
        UserError: it has not.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as cause:
        raise refused(cause, named=lambda _: name) from cause


def words(text: str, *, name: str) -> tuple[str, ...]:
    """Names or numbers separated by commas; none of empty text.

    Raises:
        UserError: commas alone.
    """
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    if text.strip() and not found:
        raise UserError(f"{setting(name, text)}: names or numbers separated by commas")
    return found
