"""What attention modules and feed-forward blocks look like, a family an entry.

An entry says where a module keeps its projections and which of its attributes count heads; nothing
else in the project knows a family's names. Entries match by class name, by the package that the class
comes from, and by the layers that must be there: a class whose forward pass is not known is never cut,
since a reshape by the full width would then fail, or worse, mix heads.

Layers are named relative to the matched module; ``../`` goes up one name, as in a path.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Projection:
    """A layer that makes queries, keys, values, or something else with a share for every head.

    Attributes:
        layer: its relative name.
        part, parts: which of how many equal, consecutive parts of its output is meant; a fused
            projection holds queries, keys and values one after another.
        each: how many times the head's size one head owns, consecutively; 3 where a fused projection
            holds query, key and value of a head side by side.
        optional: absent in some configurations.
    """

    layer: str
    part: int = 0
    parts: int = 1
    each: int = 1
    optional: bool = False


@dataclass(frozen=True)
class Refusal:
    """A part, or a flag, of a module that couples its units.

    Attributes:
        attribute: of the matched module; harmless when absent, None, false or an ``nn.Identity``. Of what
            stands beside it, the name of the class.
        reason: why such a module is left alone.
    """

    attribute: str
    reason: str


@dataclass(frozen=True)
class AttentionFamily:
    """How the heads of an attention module are found and cut.

    Attributes:
        name: for messages.
        classes: names of the attention module's class.
        home: the Python package or module that the class comes from.
        projections: what makes queries, keys and values. With grouped queries the keys have fewer
            heads, and a unit is a key/value head with all of its queries.
        out: the output projection, which reads the heads side by side.
        head_size: attribute with the channels of one head; "" where ``scaled`` begins with the attribute
            that counts the heads of the first projection instead.
        scaled: integer attributes in proportion to the number of heads.
        parameters: the module's own parameters with one share a head, along their last axis.
        carriers: modules with one parameter column a head, such as a table of relative positions.
            Attention modules that share one form one group.
        called: the last part of the module's name, where one class serves several purposes.
        unless: what makes heads depend on one another.
        beside: class names of modules anywhere in the model that do.
    """

    name: str
    classes: tuple[str, ...]
    projections: tuple[Projection, ...]
    out: str
    head_size: str
    home: str = "transformers."
    scaled: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    carriers: tuple[str, ...] = ()
    called: str | None = None
    unless: tuple[Refusal, ...] = ()
    beside: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class FeedForwardFamily:
    """How the neurons of a feed-forward block are found.

    Attributes:
        name: for messages.
        classes: names of the class that holds both layers.
        first: the layers that make the neurons; two in gated blocks.
        second: the layer that reads them.
        home: the Python package or module that the class comes from.
        unless: what makes neurons depend on one another.
        parts: in how many equal, consecutive parts of a first layer's output a neuron has a channel;
            2 where one layer makes neurons and gates.
    """

    name: str
    classes: tuple[str, ...]
    first: tuple[str, ...]
    second: str
    home: str = "transformers."
    unless: tuple[Refusal, ...] = ()
    parts: int = 1


FIXED_WIDTH = (
    "its forward pass reshapes by the model's full width, so that its heads cannot be cut; "
    "the feed-forward neurons can"
)
"""Of attention whose heads are left alone."""


def _separate(query: str, key: str, value: str) -> tuple[Projection, ...]:
    return Projection(query), Projection(key), Projection(value)


def _fused(layer: str, parts: int = 3, *, optional: bool = False) -> tuple[Projection, ...]:
    return tuple(Projection(layer, part, parts, optional=optional) for part in range(parts))


_BERT_LIKE = ("Bert", "Roberta", "Electra", "XLMRoberta", "Camembert")

ATTENTIONS: list[AttentionFamily] = [
    AttentionFamily(
        "BERT",
        tuple(f"{name}{kind}Attention" for name in _BERT_LIKE for kind in ("Self", "Cross")),
        _separate("query", "key", "value"),
        "../output.dense",
        "attention_head_size",
        scaled=("num_attention_heads", "all_head_size"),
    ),
    AttentionFamily(
        "DistilBERT",
        ("DistilBertSelfAttention",),
        _separate("q_lin", "k_lin", "v_lin"),
        "out_lin",
        "attention_head_size",
        scaled=("n_heads",),
    ),
    AttentionFamily(
        "ALBERT",
        ("AlbertAttention",),
        _separate("query", "key", "value"),
        "dense",
        "attention_head_size",
        scaled=("num_attention_heads", "all_head_size"),
    ),
    AttentionFamily(
        "DeBERTa-v2",
        ("DisentangledSelfAttention",),
        (
            *_separate("query_proj", "key_proj", "value_proj"),
            Projection("pos_key_proj", optional=True),
            Projection("pos_query_proj", optional=True),
        ),
        "../output.dense",
        "attention_head_size",
        home="transformers.models.deberta_v2.",
        scaled=("num_attention_heads", "all_head_size"),
    ),
    AttentionFamily(
        "DeBERTa",
        ("DisentangledSelfAttention",),
        (
            Projection("in_proj", each=3),
            Projection("pos_proj", optional=True),
            Projection("pos_q_proj", optional=True),
        ),
        "../output.dense",
        "attention_head_size",
        home="transformers.models.deberta.",
        scaled=("num_attention_heads", "all_head_size"),
        parameters=("q_bias", "v_bias"),
        unless=(Refusal("head_logits_proj", "its talking heads mix all heads"),),
    ),
    AttentionFamily(
        "MPNet",
        ("MPNetSelfAttention",),
        _separate("q", "k", "v"),
        "o",
        "attention_head_size",
        scaled=("num_attention_heads", "all_head_size"),
        # Computed once by the encoder and added in every layer.
        carriers=("../../../../relative_attention_bias",),
    ),
    AttentionFamily(
        "ViT, DeiT, Swin",
        ("ViTAttention", "DeiTAttention", "SwinAttention"),
        _separate("q_proj", "k_proj", "v_proj"),
        "o_proj",
        "head_dim",
        scaled=("num_attention_heads",),
        carriers=("relative_position_bias",),
    ),
    AttentionFamily(
        "BEiT",
        ("BeitAttention",),
        _separate("q_proj", "k_proj", "v_proj"),
        "o_proj",
        "head_dim",
        scaled=("num_attention_heads",),
        # The layer's own table, or the one that all layers share.
        carriers=("../relative_position_bias", "../../../shared_position_bias"),
    ),
    AttentionFamily(
        "GPT-2, cross attention",
        ("GPT2Attention",),
        (Projection("q_attn"), *_fused("c_attn", 2)),
        "c_proj",
        "head_dim",
        scaled=("num_heads", "split_size"),
        called="crossattention",
    ),
    AttentionFamily(
        "GPT-2",
        ("GPT2Attention",),
        _fused("c_attn"),
        "c_proj",
        "head_dim",
        scaled=("num_heads", "split_size"),
        called="attn",
    ),
    AttentionFamily(
        "Llama, Qwen2, Mistral",
        ("LlamaAttention", "Qwen2Attention", "MistralAttention"),
        _separate("q_proj", "k_proj", "v_proj"),
        "o_proj",
        "head_dim",
    ),
    AttentionFamily(
        "CLIP, BART",
        ("CLIPAttention", "BartAttention"),
        _separate("q_proj", "k_proj", "v_proj"),
        "out_proj",
        "head_dim",
        scaled=("num_heads",),
    ),
    # The first block's position bias is added in every block of the stack. Cross attention has none,
    # but hands on zeros of the first block's number of heads.
    AttentionFamily(
        "T5",
        ("T5Attention",),
        _separate("q", "k", "v"),
        "o",
        "key_value_proj_dim",
        scaled=("n_heads", "inner_dim"),
        carriers=("../../../../0.layer.0.SelfAttention.relative_attention_bias",),
        called="SelfAttention",
    ),
    AttentionFamily(
        "T5, cross attention",
        ("T5Attention",),
        _separate("q", "k", "v"),
        "o",
        "key_value_proj_dim",
        scaled=("n_heads", "inner_dim"),
        carriers=("../../../../0.layer.1.EncDecAttention",),
        called="EncDecAttention",
    ),
    AttentionFamily(
        "timm ViT",
        ("Attention",),
        (*_fused("qkv"), Projection("gate", optional=True)),
        "proj",
        "head_dim",
        home="timm.layers.attention",
        scaled=("num_heads", "attn_dim"),
        unless=(Refusal("norm", "its norm before the output projection runs over all heads"),),
    ),
    # Also what coprune.models.attention puts in the place of EVA's.
    AttentionFamily(
        "timm, rotary",
        ("AttentionRope",),
        (
            *_fused("qkv", optional=True),
            *(Projection(f"{part}_proj", optional=True) for part in "qkv"),
            Projection("gate", optional=True),
        ),
        "proj",
        "head_dim",
        home="timm.layers.attention",
        scaled=("num_heads", "num_kv_heads", "attn_dim", "kv_dim"),
        unless=(Refusal("norm", "its norm before the output projection runs over all heads"),),
        beside=(
            Refusal("RotaryEmbeddingMixed", "its rotary embedding has frequencies for each head by itself"),
        ),
    ),
    AttentionFamily(
        "timm Swin",
        ("WindowAttention",),
        _fused("qkv"),
        "proj",
        "",
        home="timm.models.swin_transformer",
        scaled=("num_heads",),
    ),
    # What coprune.models.attention puts in the place of nn.MultiheadAttention.
    AttentionFamily(
        "PyTorch",
        ("SeparateAttention",),
        _separate("q_proj", "k_proj", "v_proj"),
        "out_proj",
        "head_dim",
        home="coprune.models.attention",
        scaled=("num_heads",),
    ),
    AttentionFamily(
        "torchvision Swin",
        ("ShiftedWindowAttention", "ShiftedWindowAttentionV2"),
        _fused("qkv"),
        "proj",
        "head_dim",
        home="torchvision.models.swin_transformer",
        unless=(Refusal("num_heads", FIXED_WIDTH),),
    ),
    AttentionFamily(
        "torchvision MaxViT",
        ("RelativePositionalMultiHeadAttention",),
        _fused("to_qkv"),
        "merge",
        "head_dim",
        home="torchvision.models.maxvit",
        unless=(Refusal("n_heads", FIXED_WIDTH),),
    ),
]
"""Append an entry for a family of your own; the first that matches counts."""

FEED_FORWARDS: list[FeedForwardFamily] = [
    FeedForwardFamily(
        "BERT",
        (*(f"{name}Layer" for name in _BERT_LIKE), "DebertaLayer", "DebertaV2Layer", "MPNetLayer"),
        ("intermediate.dense",),
        "output.dense",
    ),
    FeedForwardFamily("DistilBERT", ("FFN",), ("lin1",), "lin2", home="transformers.models.distilbert."),
    FeedForwardFamily("ALBERT", ("AlbertLayer",), ("ffn",), "ffn_output"),
    FeedForwardFamily(
        "ViT, CLIP, BART",
        ("ViTMLP", "DeiTMLP", "BeitMLP", "SwinMLP", "CLIPMLP", "BartEncoderLayer", "BartDecoderLayer"),
        ("fc1",),
        "fc2",
    ),
    FeedForwardFamily("GPT-2", ("GPT2MLP",), ("c_fc",), "c_proj"),
    FeedForwardFamily(
        "Llama, Qwen2, Mistral",
        ("LlamaMLP", "Qwen2MLP", "MistralMLP"),
        ("gate_proj", "up_proj"),
        "down_proj",
    ),
    FeedForwardFamily("T5", ("T5DenseActDense",), ("wi",), "wo"),
    FeedForwardFamily("T5, gated", ("T5DenseGatedActDense",), ("wi_0", "wi_1"), "wo"),
    FeedForwardFamily(
        "timm ViT",
        ("Mlp",),
        ("fc1",),
        "fc2",
        home="timm.layers.mlp",
        unless=(Refusal("norm", "its norm runs over all neurons"),),
    ),
    FeedForwardFamily(
        "timm SwiGLU",
        ("SwiGLU",),
        ("fc1_g", "fc1_x"),
        "fc2",
        home="timm.layers.mlp",
        unless=(Refusal("norm", "its norm runs over all neurons"),),
    ),
    FeedForwardFamily(
        "timm SwiGLU, packed",
        ("GluMlp",),
        ("fc1",),
        "fc2",
        home="timm.layers.mlp",
        unless=(Refusal("norm", "its norm runs over all neurons"),),
        parts=2,
    ),
    FeedForwardFamily("timm ViTamin", ("GeGluMlp",), ("w0", "w1"), "w2", home="timm.models.vitamin"),
    FeedForwardFamily(
        "PyTorch",
        ("TransformerEncoderLayer", "TransformerDecoderLayer"),
        ("linear1",),
        "linear2",
        home="torch.nn.modules.transformer",
    ),
    FeedForwardFamily(
        "torchvision ViT", ("MLPBlock",), ("0",), "3", home="torchvision.models.vision_transformer"
    ),
    FeedForwardFamily("torchvision Swin", ("MLP",), ("0",), "3", home="torchvision.ops.misc"),
    FeedForwardFamily(
        "torchvision MaxViT",
        ("PartitionAttentionLayer",),
        ("mlp_layer.1",),
        "mlp_layer.3",
        home="torchvision.models.maxvit",
    ),
]
