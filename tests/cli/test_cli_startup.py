"""Names and help answer at once: torch is loaded when something is computed."""

import subprocess
import sys

import pytest

IMPORT = "import coprune"
HELP = """
import sys
from coprune.cli.main import main
sys.argv = ["coprune", "--help"]
try:
    main()
except SystemExit:
    pass"""


@pytest.mark.parametrize("code", [IMPORT, HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded(code):
    heavy = "{'torch', 'numpy', 'scipy', 'sklearn', 'transformers', 'plotly'}"
    checked = f"{code}\nimport sys; assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", checked], check=True, stdout=subprocess.DEVNULL)
