"""Options are the described fields of settings: type, default and help stand there, and nowhere else.

The command line, job files, Python arguments and the names in messages all come from these fields.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Settings whose described fields are options; the class's ``title`` is the heading they stand under."""

    model_config = ConfigDict(frozen=True, extra="forbid")
