"""The README's picture: the upper part of a run's page, whole sections, through headless Chromium.

python benchmarks/picture.py demo-run docs/report.png
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WIDTH = 1180
SECTIONS = 2
"""Step by step, and what stayed."""

# What is below is taken out, and the page says how high the rest is.
_CUT = f"""<style>section:nth-of-type(n+{SECTIONS + 1}), footer {{ display: none }}</style>
<script>
document.body.dataset.height = Math.ceil(document.querySelector("main").getBoundingClientRect().height);
</script></body>"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    picture(args.run / "report.html", args.out)
    return 0


def picture(page: Path, out: Path) -> int:
    """Draw the upper part of a page; returns its height in pixels."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("no Chromium found")
    with tempfile.TemporaryDirectory() as scratch:
        upper = Path(scratch) / "upper.html"
        upper.write_text(page.read_text().replace("</body>", _CUT))
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += ["--virtual-time-budget=6000", f"--user-data-dir={scratch}/profile", upper.as_uri()]
        seen = subprocess.run(
            [*command, f"--window-size={WIDTH},900", "--dump-dom"], capture_output=True, text=True, check=True
        )
        height = int(re.findall(r'data-height="(\d+)"', seen.stdout)[-1])
        taken = [*command, f"--window-size={WIDTH},{height}", f"--screenshot={out.resolve()}"]
        subprocess.run(taken, capture_output=True, check=True)
    return height


if __name__ == "__main__":
    sys.exit(main())
