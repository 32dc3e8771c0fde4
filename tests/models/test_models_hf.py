"""🤗 transformers checkpoints by name: trained weights, fresh heads, and every way it can go wrong."""

import json
import shutil
import sys

import pytest
import torch
from torch import nn

import texts
from coprune.errors import UserError
from coprune.models.architectures import task_of
from coprune.models.hf import config_of, fresh_parameters, label_names, pretrained, reads_images, tokenizer_of
from coprune.models.names import ModelSource
from coprune.models.registry import source_of
from coprune.pipeline.jobs import CalibratedJob
from coprune.pipeline.opening import open_both
from coprune.store import open_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A three-class text model; no test may change it."""
    return texts.tiny_text_model(tmp_path_factory.mktemp("models") / "text")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A checkpoint without a classifier, such as a sentence encoder, and without tokenizer files."""
    from transformers import BertConfig, BertModel

    where = tmp_path_factory.mktemp("models") / "encoder"
    shape = {"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**shape, intermediate_size=32, max_position_embeddings=16)).save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def vision(tmp_path_factory):
    """A two-class image model of 8×8 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    where = tmp_path_factory.mktemp("models") / "vision"
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**shape, image_size=8, patch_size=4, num_channels=1, num_labels=2)
    ViTForImageClassification(config).save_pretrained(where)
    return where


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the text model that a test may break."""
    return shutil.copytree(folder, tmp_path / "copy")


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_trained_weights_come_as_they_are(folder):
    model = pretrained(f"hf:{folder}", num_classes=3)
    saved = weights(folder)
    assert fresh_parameters(model) == ()
    assert not model.training
    assert source_of(model) == ModelSource(f"hf:{folder}", {"num_labels": 3})
    state = model.state_dict()
    assert state.keys() == saved.keys()
    assert all(torch.equal(state[key], saved[key]) for key in saved)
    assert pretrained(f"hf:{folder}", num_classes=None).config.num_labels == 3


def test_half_precision_is_loaded_as_float32(folder, tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(folder).half().save_pretrained(tmp_path)
    model = pretrained(f"hf:{tmp_path}", num_classes=3)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_another_number_of_classes_gets_a_fresh_head_by_seed(folder):
    a, b, c = (pretrained(f"hf:{folder}", num_classes=5, seed=seed) for seed in (0, 0, 1))
    assert fresh_parameters(a) == ("classifier.bias", "classifier.weight")
    assert a.classifier.weight.shape == (5, 32)
    assert torch.equal(a.classifier.weight, b.classifier.weight)
    assert not torch.equal(a.classifier.weight, c.classifier.weight)
    key = "bert.encoder.layer.0.output.dense.weight"
    assert torch.equal(a.state_dict()[key], weights(folder)[key])


def test_a_given_seed_leaves_the_global_generator_alone(folder):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    pretrained(f"hf:{folder}", num_classes=5, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_an_encoder_gets_a_head(encoder):
    model = pretrained(f"hf:{encoder}", num_classes=4, seed=0)
    assert "classifier.weight" in fresh_parameters(model)
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape == (1, 4)
    key = "encoder.layer.0.output.dense.weight"
    assert torch.equal(model.state_dict()[f"bert.{key}"], weights(encoder)[key])


def test_image_models_are_told_by_their_configuration(vision, folder):
    assert reads_images(config_of(f"hf:{vision}"))
    assert not reads_images(config_of(f"hf:{folder}"))
    model = open_model(f"hf:{vision}", arguments={}, offered={"in_channels": 1, "num_classes": 2})
    assert type(model).__name__ == "ViTForImageClassification"
    assert model(torch.zeros(1, 1, 8, 8)).logits.shape == (1, 2)
    assert tokenizer_of(f"hf:{vision}") is None


def test_what_can_be_given(folder):
    offered = {"num_classes": 3}
    assert open_model(f"hf:{folder}", arguments={"num_classes": 4}, offered=offered).config.num_labels == 4
    with pytest.raises(UserError, match="width: a checkpoint"):
        open_model(f"hf:{folder}", arguments={"width": 8}, offered=offered)


def test_where_the_tokenizer_is(folder, encoder, tmp_path):
    assert tokenizer_of(f"hf:{folder}") == str(folder)
    assert tokenizer_of(str(folder)) == str(folder)  # a run folder holds the same files
    assert tokenizer_of(f"hf:{encoder}") is None
    assert tokenizer_of(str(tmp_path)) is None
    assert tokenizer_of("coprune:resnet20") is None


def test_names_of_classes(copy, folder):
    assert label_names(f"hf:{folder}") is None  # LABEL_0 … says nothing
    assert label_names("coprune:resnet20") is None
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {"0": "no", "1": "maybe", "2": "yes"}
    (copy / "config.json").write_text(json.dumps(config))
    assert label_names(f"hf:{copy}") == label_names(str(copy)) == ("no", "maybe", "yes")


def test_model_and_texts_fit_without_being_told(copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {"0": "2", "1": "0", "2": "1"}
    (copy / "config.json").write_text(json.dumps(config))
    path = texts.tiny_tsv(tmp_path / "t.tsv")
    model, data = open_both(CalibratedJob(model=f"hf:{copy}", data=f"tsv:{path}", calibration=30), seed=0)
    assert fresh_parameters(model) == ()
    # The model's order of classes, not that of the table.
    assert data.names == ("2", "0", "1")
    inputs, _ = next(data.calibration.batches(4))
    assert model(**inputs).logits.shape == (4, 3)


def test_a_tokenizer_can_be_given(encoder, folder, tmp_path):
    path = texts.tiny_tsv(tmp_path / "t.tsv")
    job = CalibratedJob(model=f"hf:{encoder}", data=f"tsv:{path}", calibration=30)
    with pytest.raises(UserError, match="needs a tokenizer"):
        open_both(job, seed=0)
    model, data = open_both(job.model_copy(update={"tokenizer": str(folder)}), seed=0)
    inputs, _ = next(data.calibration.batches(4))
    assert model(**inputs).logits.shape == (4, 3)


def one_line(name, words, **options):
    with pytest.raises(UserError, match=words) as caught:
        pretrained(name, num_classes=3, **options)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_model(tmp_path, copy):
    one_line("hf:", "hf:DIR or hf:ID")
    one_line(f"hf:{tmp_path}/none", "no such folder")
    one_line("hf:./none", "no such folder")
    one_line(f"hf:{tmp_path}", f"no config.json; did you mean hf:{copy}")
    one_line(f"hf:{copy}/config.json", "no such folder")
    (copy / "config.json").unlink()
    one_line(f"hf:{copy}", "no config.json; give the folder")


BROKEN = {
    "not JSON": ("config.json", lambda raw: raw[:40], "config.json: truncated"),
    "no type": ("config.json", lambda _: b'{"a": 1}', "model_type"),
    "unknown type": ("config.json", lambda _: b'{"model_type": "nonsense"}', "nonsense"),
    "cut weights": ("model.safetensors", lambda raw: raw[:5000], "weights cannot be loaded"),
    "no weights": ("model.safetensors", None, "weights cannot be loaded"),
    "wider": (
        "config.json",
        lambda raw: raw.replace(b'"hidden_size": 32', b'"hidden_size": 64'),
        "do not fit",
    ),
}


@pytest.mark.parametrize(("file", "change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_one_line(copy, file, change, words):
    raw = (copy / file).read_bytes()
    (copy / file).unlink()
    if change is not None:
        (copy / file).write_bytes(change(raw))
    one_line(f"hf:{copy}", words)


def test_weights_of_another_architecture_are_one_line(copy):
    from safetensors.torch import save_file

    save_file({"conv.weight": torch.zeros(3, 3)}, copy / "model.safetensors", metadata={"format": "pt"})
    one_line(f"hf:{copy}", "of another architecture")


def test_a_model_that_makes_no_classifier(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vitpose"}')
    one_line(f"hf:{tmp_path}", "has no AutoModelForSequenceClassification of a vitpose")


def test_a_class_that_the_library_does_not_have(encoder, tmp_path):
    shutil.copytree(encoder, tmp_path / "m")
    config = json.loads((encoder / "config.json").read_text()) | {"architectures": ["MineForCausalLM"]}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    one_line(f"hf:{tmp_path}/m", "names the class MineForCausalLM, which transformers .* does not have")


_TEXT = {
    **{"vocab_size": 24, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"intermediate_size": 32, "max_position_embeddings": 16},
}
_BART = {
    **{"vocab_size": 24, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32},
    **{"decoder_ffn_dim": 32, "max_position_embeddings": 16},
}
_SEGFORMER = {
    **{"num_channels": 1, "num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1]},
    **{"hidden_sizes": [8, 8], "patch_sizes": [3, 3], "strides": [2, 2], "num_attention_heads": [1, 1]},
    **{"mlp_ratios": [2, 2], "decoder_hidden_size": 8},
}
_SPEECH = {
    **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
    **{"conv_dim": [8], "conv_stride": [4], "conv_kernel": [4], "num_conv_pos_embeddings": 4},
    **{"num_conv_pos_embedding_groups": 2, "vocab_size": 12},
}
NAMED = {
    "LlamaForCausalLM": ("LlamaConfig", _TEXT, "text-generation"),
    "GPT2LMHeadModel": (
        "GPT2Config",
        {"vocab_size": 24, "n_embd": 16, "n_layer": 1, "n_head": 2},
        "text-generation",
    ),
    "BartForConditionalGeneration": ("BartConfig", _BART, "seq2seq"),
    "BertForTokenClassification": ("BertConfig", _TEXT, "token-classification"),
    "BertForQuestionAnswering": ("BertConfig", _TEXT, "question-answering"),
    "SegformerForSemanticSegmentation": ("SegformerConfig", _SEGFORMER, "segmentation"),
    "Wav2Vec2ForCTC": ("Wav2Vec2Config", _SPEECH, None),
    "Wav2Vec2ForSequenceClassification": ("Wav2Vec2Config", _SPEECH, "classification"),
}


@pytest.mark.parametrize("named", NAMED)
def test_the_class_that_the_configuration_names(named, tmp_path):
    import transformers

    kind, shape, task = NAMED[named]
    saved = getattr(transformers, named)(getattr(transformers, kind)(**shape))
    saved.save_pretrained(tmp_path)
    model = open_model(f"hf:{tmp_path}", arguments={}, offered={}, seed=0)
    assert type(model) is type(saved)
    assert fresh_parameters(model) == ()
    assert all(torch.equal(saved.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    assert task_of(model) == task_of(config_of(f"hf:{tmp_path}")) == task
    # A stated task changes nothing, nor do classes that it has no place for.
    assert type(pretrained(f"hf:{tmp_path}", num_classes=None, task="feature-extraction")) is type(saved)
    given = pretrained(f"hf:{tmp_path}", num_classes=4)
    assert bool(fresh_parameters(given)) == (
        task in ("classification", "token-classification", "segmentation")
    )


def test_a_base_is_opened_as_the_task_asks(encoder):
    def opened(task, classes=None):
        return pretrained(f"hf:{encoder}", num_classes=classes, task=task, seed=0)

    for task, named in {
        None: "BertModel",
        "feature-extraction": "BertModel",
        "outputs": "BertModel",
        "token-classification": "BertForTokenClassification",
        "question-answering": "BertForQuestionAnswering",
        "classification": "BertForSequenceClassification",
    }.items():
        assert type(opened(task)).__name__ == named
    assert type(opened(None, 3)).__name__ == "BertForSequenceClassification"
    numbers, several = opened("regression"), opened("multilabel", 5)
    assert (numbers.config.num_labels, task_of(numbers)) == (1, "regression")
    assert (several.config.num_labels, task_of(several)) == (5, "multilabel")
    with pytest.raises(UserError, match="has no AutoModelForSemanticSegmentation of a bert"):
        opened("segmentation")


def test_a_pretrainings_head_stays_where_nothing_else_is_asked(tmp_path):
    from transformers import BertConfig, BertForMaskedLM

    BertForMaskedLM(BertConfig(**_TEXT)).save_pretrained(tmp_path)
    kinds = {
        (None, None): "BertForMaskedLM",
        (None, 3): "BertForSequenceClassification",
        ("feature-extraction", None): "BertModel",
    }
    for (task, classes), named in kinds.items():
        assert type(pretrained(f"hf:{tmp_path}", num_classes=classes, task=task)).__name__ == named


def test_no_task_of_what_is_no_model_of_the_library():
    assert task_of(nn.Linear(2, 2)) is None


def test_code_of_a_checkpoint_is_not_run(copy, tmp_path):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    one_line(f"hf:{copy}", "cannot be read")
    assert not (tmp_path / "ran").exists()


def test_a_hub_out_of_reach_is_one_line(monkeypatch):
    from transformers import AutoConfig

    def unreachable(where, **_):
        raise OSError(f"We couldn't connect to the hub to load {where}.\nCheck your internet connection.")

    monkeypatch.setattr(AutoConfig, "from_pretrained", unreachable)
    one_line("hf:some/model", "couldn't connect.*check the id and the network, or give a folder")
    with pytest.raises(UserError, match="network"):
        tokenizer_of("hf:some/model")


def test_without_the_library(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    one_line(f"hf:{folder}", r"pip install coprune\[text\]")
