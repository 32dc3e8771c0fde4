"""The README's picture: the upper part of a run's page, through headless Chromium.

python benchmarks/picture.py demo-run docs/report.png
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium found")
    with tempfile.TemporaryDirectory() as profile:
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--virtual-time-budget=6000",
        ]
        flags += ["--window-size=1180,1640", f"--user-data-dir={profile}"]
        page = (args.run / "report.html").resolve().as_uri()
        return subprocess.call([browser, *flags, f"--screenshot={args.out.resolve()}", page])


if __name__ == "__main__":
    sys.exit(main())
