"""Chromium without a window: what a page becomes, what it says on the console, what it asks for."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Visit:
    """One page as the browser saw it.

    Attributes:
        dom: the document after its scripts ran.
        console: messages, one a line of Chromium's log.
        requests: addresses the page asked for, whether or not anything answered (nothing does).
    """

    dom: str
    console: list[str]
    requests: list[str]


def find() -> str | None:
    """The browser's program, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def visit(page: Path, scratch: Path, *, width: int = 1280, screenshot: Path | None = None) -> Visit:
    """Open a file in Chromium and wait for its scripts.

    Args:
        page: the HTML file.
        scratch: a folder for the profile and the net log.
        width: of the window.
        screenshot: where a picture goes; the DOM is not dumped then.
    """
    log = scratch / "net.json"
    command = [
        find() or "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-extensions",
        "--disable-default-apps",
        "--no-first-run",
        "--enable-logging=stderr",
        "--v=0",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=8000",
        f"--log-net-log={log}",
        f"--user-data-dir={scratch / 'profile'}",
        f"--window-size={width},900",
        f"--screenshot={screenshot}" if screenshot else "--dump-dom",
        page.resolve().as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Visit(dom=done.stdout, console=console, requests=requested(log))


def requested(log: Path) -> list[str]:
    """Every address in a net log that a page asked for, files of this machine left out, in order, once.

    Chromium asks for things of its own (its clock, its updates) whatever the switches say; such
    requests have no initiator, those of a page have one ("null" for a file's).

    Raises:
        ValueError: the log shows no event at all, or does not know the event that is looked for.
    """
    content = json.loads(log.read_text())
    start = content["constants"]["logEventTypes"].get("URL_REQUEST_START_JOB")
    if start is None or not content["events"]:
        raise ValueError(f"{log}: proves nothing")
    asked = [e["params"] for e in content["events"] if e["type"] == start and "url" in e.get("params", {})]
    urls = [p["url"] for p in asked if p.get("initiator") != "not an origin"]
    return [url for url in dict.fromkeys(urls) if not url.startswith(("file:", "data:", "blob:"))]
