"""Plain text without labels: ``lines:FILE``, a sample a line.

Of a language model (``text-generation``) the text is one: its tokens are cut into blocks, see
:func:`coprune.data.language.packed`, and the last fifth is held out: neighbours know too much of each other.
"""

from __future__ import annotations

import re

from coprune.data.names import place_of
from coprune.data.subsample import held_out
from coprune.data.text import Texts
from coprune.data.tsv import numbered_lines, read_text
from coprune.errors import UserError

_HELDOUT = 0.2


def load(argument: str | None, *, task: str | None = None) -> tuple[Texts, ...]:
    """Training and held-out texts.

    Args:
        argument: the file, packed with gzip or not.
        task: paragraphs are kept together for ``text-generation``.

    Raises:
        UserError: no or an unreadable file, or next to no text in it.
    """
    path = place_of(argument, "lines", form="FILE")
    if task != "text-generation":
        return held_out({"train": Texts(tuple(line for _, line in numbered_lines(path)))})
    parts = [part for part in re.split(r"(?<=\n\n)", read_text(path)) if part.strip()]
    if len(parts) < 2:
        raise UserError(f"lines:{argument}: a single paragraph; give more, with empty lines between them")
    first = len(parts) - max(1, round(_HELDOUT * len(parts)))
    return Texts(tuple(parts[:first])), Texts(tuple(parts[first:]))
