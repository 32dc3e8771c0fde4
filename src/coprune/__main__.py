"""``python -m coprune``."""

from coprune.cli.main import main

if __name__ == "__main__":
    main()
