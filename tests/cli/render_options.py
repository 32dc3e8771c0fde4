"""``docs/options.md`` from the settings that the options are: ``make options-table``."""

from __future__ import annotations

import sys
from pathlib import Path

from coprune.cli.command import HEADINGS, options_in, sentence
from coprune.cli.commands import COMMANDS, function_of
from coprune.options import Option

HEAD = """# Every option

What stands here is what `coprune COMMAND --help` says: both come from the settings in the code, by
`make options-table`. In job files (`coprune run job.toml`) a key is an option without its dashes in front;
in Python (`coprune.prune(...)`) it has `_` for `-`.
"""


def _row(option: Option) -> str:
    default = option.default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    shown = (
        "required"
        if option.required
        else ""
        if default is None or default is False or default == ""
        else f"`{default}`"
    )
    help = sentence(option.help).replace("|", "\\|")
    return f"| `--{option.name.replace('_', '-')}` | {shown} | {help} |"


def rendered() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    for command, summary in COMMANDS.items():
        options = options_in(function_of(command))
        if options:
            parts.append(f"## coprune {command}\n\n{summary}\n")
        for heading in sorted({option.heading for option in options}, key=HEADINGS.index):
            rows = [_row(option) for option in options if option.heading == heading]
            parts.append("\n".join([f"| {heading} | default | |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    page = Path(__file__).parents[2] / "docs" / "options.md"
    page.write_text(rendered())
    sys.stdout.write(f"{page}\n")
