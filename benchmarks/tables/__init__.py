"""The tables of README and docs: results in, Markdown out."""
