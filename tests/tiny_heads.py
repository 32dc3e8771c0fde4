"""A BERT of a few kilobytes, its groups of heads made by hand, and batches of padded token numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from coprune.groups import ChannelGroup
from coprune.plan import Member

CLASSES = 3


def bert(
    *,
    layers: int = 2,
    heads: int = 4,
    hidden: int = 32,
    classes: int = CLASSES,
    seed: int = 0,
    attention: str = "sdpa",
):
    """An untrained classifier with wide weights, so that heads draw different maps."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=60,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        num_labels=classes,
        pad_token_id=0,
        initializer_range=0.3,
        attn_implementation=attention,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config).eval()


def layer_members(attention: str, out: str, span: int) -> tuple[Member, ...]:
    """Query, key and value make a head, the output projection reads it."""
    made = [Member(layer=f"{attention}.{n}", role="producer", span=span) for n in ("query", "key", "value")]
    return (*made, Member(layer=out, role="consumer", span=span))


def bert_groups(model) -> tuple[ChannelGroup, ...]:
    """One group a layer, as the finder makes them, and one of another kind that head methods pass over."""
    config = model.config
    span = config.hidden_size // config.num_attention_heads
    found = []
    for i in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{i}"
        members = layer_members(f"{layer}.attention.self", f"{layer}.attention.output.dense", span)
        found.append(
            ChannelGroup(f"{layer}.attention.self", config.num_attention_heads, members, kind="heads")
        )
    members = (
        Member(layer="bert.encoder.layer.0.intermediate.dense", role="producer"),
        Member(layer="bert.encoder.layer.0.output.dense", role="consumer"),
    )
    neurons = ChannelGroup(members[0].layer, config.intermediate_size, members, kind="neurons")
    return (*found[:1], neurons, *found[1:])


@dataclass(frozen=True)
class TokenSource:
    """Random sentences of unequal length, padded to the longest of their batch."""

    lengths: Tensor
    labels: Tensor
    seed: int = 0
    vocabulary: int = 60
    widest: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widest", int(self.lengths.max()))

    def __len__(self) -> int:
        return len(self.labels)

    def steps(self, batch_size: int, fraction: float = 1.0) -> int:
        return -(-len(self) // batch_size)

    def batches(self, batch_size: int):
        draw = torch.Generator().manual_seed(self.seed)
        ids = torch.randint(1, self.vocabulary, (len(self), self.widest), generator=draw)
        for at in range(0, len(self), batch_size):
            part = slice(at, at + batch_size)
            width = int(self.lengths[part].max())
            mask = (torch.arange(width) < self.lengths[part].unsqueeze(1)).long()
            yield {"input_ids": ids[part, :width] * mask, "attention_mask": mask}, self.labels[part]


def sentences(n: int, *, classes: int = CLASSES, shortest: int = 1, longest: int = 20, seed: int = 0):
    """``n`` sentences, sorted by length as text sources store them."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(shortest, longest + 1, (n,), generator=draw).sort().values
    return TokenSource(lengths, torch.randint(0, classes, (n,), generator=draw), seed)
