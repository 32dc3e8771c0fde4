"""``python -m coprune``, and what the installed command starts."""

import sys


def start() -> None:
    """Run the command line; Ctrl-C while it is imported is one line, too."""
    try:
        from coprune.cli.main import main
    except KeyboardInterrupt:
        print("coprune: interrupted", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
