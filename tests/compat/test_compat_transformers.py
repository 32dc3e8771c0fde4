"""Whether the installed 🤗 transformers is one that is known, and still has what is relied on."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import transformers

from coprune.compat.transformers import VERSIONS, library_errors, local_only, model_class, quiet_hub
from coprune.errors import UserError
from coprune.groups.families import ATTENTIONS, FEED_FORWARDS


def test_the_version_is_known():
    """Outside: run the suite, read what changed in the families' forward passes, then widen VERSIONS."""
    version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
    assert VERSIONS[0] <= version < VERSIONS[1]


@pytest.mark.parametrize(
    "family",
    [f for f in (*ATTENTIONS, *FEED_FORWARDS) if f.home.startswith("transformers.")],
    ids=lambda f: f.name,
)
def test_a_familys_classes_are_there(family):
    folder = Path(transformers.__file__).parent / "/".join(family.home.split(".")[1:])
    code = "\n".join(p.read_text() for p in folder.rglob("modeling_*.py"))
    patterns = {name: name.replace("*", r"\w*") for name in family.classes}
    missing = [name for name, words in patterns.items() if not re.search(rf"^class {words}\(", code, re.M)]
    assert not missing


def test_internals_are_there():
    config = transformers.BertConfig()
    assert hasattr(config, "_attn_implementation")
    assert isinstance(transformers.CLIPConfig.sub_configs, dict)
    assert {"output_loading_info", "ignore_mismatched_sizes"} <= set(
        re.findall(r"\w+", inspect.getsource(transformers.PreTrainedModel.from_pretrained))
    )
    assert model_class("BertModel") is transformers.BertModel
    assert model_class("BertConfig") is None
    config._attn_implementation = "someone/kernels"
    assert local_only(config)._attn_implementation is None


def test_what_the_library_says_is_one_line():
    with (
        pytest.raises(UserError, match=r"^model 'x' cannot be read \(lost\); look there$"),
        library_errors("model 'x' cannot be read", then="; look there"),
    ):
        raise OSError("\n lost \nfor long")
    with quiet_hub(), pytest.raises(UserError, match="already said"), library_errors("x"):
        raise UserError("already said")
