"""``python -m coprune``, and what the installed command starts."""

import os
import sys

SPINS = 30_000
"""How often a thread that waits for the others looks again before it sleeps, where the user says nothing.

GNU's OpenMP, which PyTorch for Linux brings, looks for milliseconds. Where another program has one of the
cores, every wait is for a thread that cannot run: `coprune demo` beside one busy thread on two cores took
291 s so, and 65 s like this. Undisturbed it takes as long as before; without any looking a quarter longer.
"""


def start() -> None:
    """Run the command line; Ctrl-C while it is imported is one line, too."""
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)  # read when torch is loaded
    try:
        from coprune.cli.main import main
    except KeyboardInterrupt:
        print("coprune: interrupted", file=sys.stderr)
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
