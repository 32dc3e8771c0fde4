"""Random transformers of every family, small enough to run in milliseconds: width 32, 2 layers, 4 heads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coprune.groups import ChannelGroup
from coprune.plan import GroupDecision
from tiny_transformers_made import (
    CLASSES,
    TOKENS,
    WORDS,
    encoder_net,
    maxvit_net,
    swin_net,
    timm_gated_net,
    timm_net,
    timm_packed_net,
    timm_rotary_net,
    timm_swin_net,
    torchvision_net,
)

_TEXT = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_labels": CLASSES,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
_IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "num_labels": CLASSES,
    "image_size": 12,
    "patch_size": 4,
    "num_channels": 1,
}
_DECODER = {**_TEXT, "num_key_value_heads": 4, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
_DEBERTA = {
    **_TEXT,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "max_relative_positions": 16,
    "type_vocab_size": 0,
    "position_biased_input": False,
}


@dataclasses.dataclass(frozen=True)
class Tiny:
    """How to make one.

    Attributes:
        model, config: names of the classes in transformers; "" for other libraries.
        settings: of the configuration.
        reads: ``text``, ``image``, ``both``, ``pair`` (encoder and decoder), ``mel`` (spectrograms for the
            encoder) or ``wave``.
        implementations: of attention.
        make: instead of the classes.
    """

    model: str
    config: str = ""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    reads: str = "text"
    implementations: tuple[str, ...] = ("eager", "sdpa")
    make: Callable[[], nn.Module] | None = None


_T5 = {
    "vocab_size": WORDS,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 2,
    "num_heads": 4,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
}
_BART = {
    "vocab_size": WORDS,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 40,
    "num_labels": CLASSES,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_CLIP = {
    "text_config": {**_TEXT, "bos_token_id": 1, "eos_token_id": 2},
    "vision_config": _IMAGE,
    "projection_dim": 16,
}
_SWIN = {
    "image_size": 16,
    "patch_size": 2,
    "num_channels": 1,
    "embed_dim": 16,
    "depths": [2, 1],
    "num_heads": [4, 4],
    "window_size": 4,
    "mlp_ratio": 1.25,
    "num_labels": CLASSES,
}

_GROUPED = {**_DECODER, "num_attention_heads": 8, "head_dim": 4}
_FALCON = {**_TEXT, "bos_token_id": 1, "eos_token_id": 2, "ffn_hidden_size": 40}
_WHISPER = {
    **_BART,
    "num_mel_bins": 6,
    "max_source_positions": 8,
    "max_target_positions": 20,
    "begin_suppress_tokens": None,
}
_SPEECH = {
    **_TEXT,
    "conv_dim": [8, 8],
    "conv_kernel": [4, 3],
    "conv_stride": [4, 3],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
    "classifier_proj_size": 16,
}

ZOO: dict[str, Tiny] = {
    "bert": Tiny("BertForSequenceClassification", "BertConfig", _TEXT),
    "roberta": Tiny("RobertaForSequenceClassification", "RobertaConfig", _TEXT),
    "xlm_roberta": Tiny("XLMRobertaForSequenceClassification", "XLMRobertaConfig", _TEXT),
    "camembert": Tiny("CamembertForSequenceClassification", "CamembertConfig", _TEXT),
    "distilbert": Tiny(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        {
            "vocab_size": WORDS,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 40,
            "num_labels": CLASSES,
            "max_position_embeddings": 40,
        },
    ),
    "electra": Tiny("ElectraForSequenceClassification", "ElectraConfig", {**_TEXT, "embedding_size": 16}),
    "albert": Tiny("AlbertForSequenceClassification", "AlbertConfig", {**_TEXT, "embedding_size": 16}),
    "mpnet": Tiny("MPNetForSequenceClassification", "MPNetConfig", _TEXT, implementations=("eager",)),
    "deberta": Tiny(
        "DebertaForSequenceClassification", "DebertaConfig", _DEBERTA, implementations=("eager",)
    ),
    "deberta_v2": Tiny(
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**_DEBERTA, "share_att_key": False},
        implementations=("eager",),
    ),
    "deberta_v3": Tiny(
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        {**_DEBERTA, "share_att_key": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
        implementations=("eager",),
    ),
    "vit": Tiny("ViTForImageClassification", "ViTConfig", _IMAGE, "image"),
    "deit": Tiny("DeiTForImageClassification", "DeiTConfig", _IMAGE, "image"),
    "beit": Tiny(
        "BeitForImageClassification", "BeitConfig", {**_IMAGE, "use_relative_position_bias": True}, "image"
    ),
    "beit_shared": Tiny(
        "BeitForImageClassification",
        "BeitConfig",
        {**_IMAGE, "use_shared_relative_position_bias": True},
        "image",
    ),
    "swin": Tiny("SwinForImageClassification", "SwinConfig", _SWIN, "image"),
    "gpt2": Tiny(
        "GPT2LMHeadModel",
        "GPT2Config",
        {
            "vocab_size": WORDS,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 40,
            "n_positions": 40,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
    ),
    "llama": Tiny("LlamaForCausalLM", "LlamaConfig", _DECODER),
    "llama_grouped": Tiny(
        "LlamaForSequenceClassification",
        "LlamaConfig",
        {**_DECODER, "num_attention_heads": 8, "head_dim": 4, "mlp_bias": True, "attention_bias": True},
    ),
    "qwen2": Tiny("Qwen2ForCausalLM", "Qwen2Config", {**_DECODER, "num_attention_heads": 8, "head_dim": 4}),
    "mistral": Tiny("MistralForCausalLM", "MistralConfig", {**_DECODER, "num_attention_heads": 8}),
    "qwen3": Tiny("Qwen3ForCausalLM", "Qwen3Config", _GROUPED),
    "gemma2": Tiny(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_GROUPED, "query_pre_attn_scalar": 4},
        implementations=("eager",),
    ),
    "smollm3": Tiny("SmolLM3ForCausalLM", "SmolLM3Config", _GROUPED),
    "stablelm": Tiny("StableLmForCausalLM", "StableLmConfig", {**_DECODER, "num_attention_heads": 8}),
    "starcoder2": Tiny("Starcoder2ForCausalLM", "Starcoder2Config", {**_DECODER, "num_attention_heads": 8}),
    "phi": Tiny("PhiForCausalLM", "PhiConfig", {**_DECODER, "num_attention_heads": 8}),
    "phi3": Tiny("Phi3ForCausalLM", "Phi3Config", {**_DECODER, "num_attention_heads": 8}),
    "gpt_neox": Tiny("GPTNeoXForCausalLM", "GPTNeoXConfig", _DECODER),
    "gpt_neo": Tiny(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "vocab_size": WORDS,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "intermediate_size": 40,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 40,
        },
        implementations=("eager",),
    ),
    "gptj": Tiny(
        "GPTJForCausalLM",
        "GPTJConfig",
        {
            "vocab_size": WORDS,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": 40,
            "n_positions": 40,
            "rotary_dim": 4,
        },
        implementations=("eager",),
    ),
    "opt": Tiny("OPTForCausalLM", "OPTConfig", {**_DECODER, "ffn_dim": 40, "word_embed_proj_dim": 32}),
    "bloom": Tiny(
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4, "pad_token_id": 0},
        implementations=("eager",),
    ),
    "falcon": Tiny("FalconForCausalLM", "FalconConfig", {**_FALCON, "multi_query": False}),
    "falcon_grouped": Tiny(
        "FalconForCausalLM",
        "FalconConfig",
        {**_FALCON, "num_attention_heads": 8, "num_kv_heads": 4, "new_decoder_architecture": True},
    ),
    "falcon_alibi": Tiny(
        "FalconForCausalLM", "FalconConfig", {**_FALCON, "multi_query": False, "alibi": True}
    ),
    "bert_tagger": Tiny("BertForTokenClassification", "BertConfig", _TEXT),
    "bert_base": Tiny("BertModel", "BertConfig", _TEXT),
    "ernie": Tiny("ErnieForSequenceClassification", "ErnieConfig", _TEXT),
    "modernbert": Tiny("ModernBertForTokenClassification", "ModernBertConfig", {**_TEXT, "eos_token_id": 2}),
    "mt5": Tiny("MT5ForConditionalGeneration", "MT5Config", _T5, "pair"),
    "marian": Tiny("MarianMTModel", "MarianConfig", _BART, "pair"),
    "whisper": Tiny("WhisperForConditionalGeneration", "WhisperConfig", _WHISPER, "mel"),
    "wav2vec2": Tiny("Wav2Vec2ForCTC", "Wav2Vec2Config", _SPEECH, "wave"),
    "wav2vec2_stable": Tiny(
        "Wav2Vec2ForSequenceClassification",
        "Wav2Vec2Config",
        {**_SPEECH, "do_stable_layer_norm": True},
        "wave",
    ),
    "hubert": Tiny("HubertForSequenceClassification", "HubertConfig", _SPEECH, "wave"),
    "dinov2": Tiny("Dinov2ForImageClassification", "Dinov2Config", {**_IMAGE, "mlp_ratio": 2}, "image"),
    "clip": Tiny("CLIPModel", "CLIPConfig", _CLIP, "both"),
    "clip_vision": Tiny(
        "CLIPForImageClassification", "CLIPConfig", {**_CLIP, "num_labels": CLASSES}, "image"
    ),
    "t5": Tiny("T5ForConditionalGeneration", "T5Config", _T5, "pair"),
    "t5_gated": Tiny(
        "T5ForConditionalGeneration",
        "T5Config",
        {**_T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "pair",
    ),
    "bart": Tiny("BartForConditionalGeneration", "BartConfig", _BART, "pair"),
    "bart_classifier": Tiny("BartForSequenceClassification", "BartConfig", _BART, "text"),
    "timm": Tiny("", reads="tensor", implementations=("sdpa",), make=timm_net),
    "timm_norms": Tiny(
        "",
        reads="tensor",
        implementations=("sdpa",),
        make=functools.partial(timm_net, qkv_bias=False, qk_norm=True, init_values=0.5),
    ),
    "timm_gated": Tiny("", reads="tensor", implementations=("sdpa",), make=timm_gated_net),
    "timm_packed": Tiny("", reads="tensor", implementations=("sdpa",), make=timm_packed_net),
    **{
        name: Tiny("", reads="tensor", implementations=("sdpa",), make=made)
        for name, made in (
            ("timm_eva", functools.partial(timm_rotary_net, num_heads=4)),
            (
                "timm_eva_split",
                functools.partial(timm_rotary_net, num_heads=4, qkv_fused=False, qk_norm=True),
            ),
            (
                "timm_rotary_grouped",
                functools.partial(
                    timm_rotary_net, num_heads=8, num_kv_heads=4, qkv_fused=False, attn_type="rope"
                ),
            ),
            ("timm_swin", timm_swin_net),
        )
    },
    "torchvision": Tiny("", reads="colour", implementations=("sdpa",), make=torchvision_net),
    "encoder": Tiny(
        "", reads="tensor", implementations=("sdpa",), make=functools.partial(encoder_net, batch_first=True)
    ),
    "encoder_second": Tiny(
        "", reads="tensor", implementations=("sdpa",), make=functools.partial(encoder_net, batch_first=False)
    ),
    **{
        name: Tiny("", reads="colour", implementations=("eager",), make=made)
        for name, made in (
            ("torchvision_swin", functools.partial(swin_net, "")),
            ("torchvision_swin_v2", functools.partial(swin_net, "V2")),
            ("torchvision_maxvit", maxvit_net),
        )
    },
}

CASES = [(name, how) for name, tiny in ZOO.items() for how in tiny.implementations]


def transformer(name: str, attention: str = "", *, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network of the zoo with random weights everywhere, so that no bias or table is zero; fused attention
    unless said otherwise, where the family has it.
    """
    tiny = ZOO[name]
    torch.manual_seed(1)
    if tiny.make is not None:
        model = tiny.make()
    else:
        import transformers

        config = getattr(transformers, tiny.config)(**tiny.settings)
        config._attn_implementation = attention or tiny.implementations[-1]
        model = getattr(transformers, tiny.model)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def inputs(name: str, *, samples: int = 2, dtype: torch.dtype = torch.float64) -> Any:
    """What the network reads: a tensor, or named ones; the last sample is padded."""
    tiny = ZOO[name]
    generator = torch.Generator().manual_seed(2)
    side = 16 if "swin" in name or name.endswith("maxvit") else 12
    image = torch.randn(samples, 3 if tiny.reads == "colour" else 1, side, side, generator=generator)
    if tiny.reads in ("tensor", "colour"):
        return image.to(dtype)
    if tiny.reads == "image":
        return {"pixel_values": image.to(dtype)}
    if tiny.reads == "wave":
        return {"input_values": torch.randn(samples, 96, generator=generator, dtype=dtype)}
    words = torch.randint(5, WORDS, (samples, 4), generator=generator)
    if tiny.reads == "mel":
        mel = torch.randn(samples, 6, 16, generator=generator, dtype=dtype)
        return {"input_features": mel, "decoder_input_ids": words}
    ids = torch.randint(5, WORDS, (samples, TOKENS), generator=generator)
    ids[:, -1] = 2  # BART classifies where the end of the sentence is
    mask = torch.ones_like(ids)
    if samples > 1 and name != "bart_classifier":
        mask[-1, 5:] = 0
        ids[-1, 5:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    if tiny.reads == "both":
        found["pixel_values"] = image.to(dtype)
    if tiny.reads == "pair":
        found["decoder_input_ids"] = torch.randint(5, WORDS, (samples, 4), generator=generator)
    return found


def output(model: nn.Module, x: Any) -> Tensor:
    """Logits, whatever the model calls them, or the last hidden states of a model without a head."""
    with torch.no_grad():
        found = model(**x) if isinstance(x, dict) else model(x)
    if isinstance(found, Tensor):
        return found
    return next(found[key] for key in ("logits", "logits_per_image", "last_hidden_state") if key in found)


def decide(group: ChannelGroup, kept: tuple[int, ...]) -> GroupDecision:
    """Keep some units of a group."""
    return GroupDecision(name=group.name, members=group.members, size=group.size, kept=kept, reason="test")


def uneven(groups: tuple[ChannelGroup, ...]) -> tuple[GroupDecision, ...]:
    """One head here, three there; a third of the neurons here, most of them there."""
    heads, neurons, found = [(2,), (0, 1, 3), (1, 2)], [(0, 7, 9, 19), tuple(range(3, 18))], []
    for group in groups:
        choices = heads if group.kind == "heads" else neurons
        found.append(decide(group, tuple(k for k in choices[0] if k < group.size) or (0,)))
        choices.append(choices.pop(0))
    return tuple(found)
