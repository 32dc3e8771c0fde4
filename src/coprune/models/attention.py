"""Attention whose heads cannot be cut, replaced by one that computes the same and lets them go.

PyTorch's ``nn.MultiheadAttention`` keeps queries, keys and values in one parameter and reshapes by the
model's full width: a head cannot go. The one here computes the same with four linear layers and any number
of heads, takes the same arguments and hands back the same values, so it can stand in its place. timm's EVA
attention reshapes by the full width too; timm's own rotary attention stands in for it.

Shapes: ``N`` samples, ``L`` queries, ``S`` keys, ``E`` the model's width, ``H`` heads of ``D`` channels.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SeparateAttention(nn.Module):
    """Multi-head attention with separate projections.

    Args:
        attention: what it is to compute; its parameters are copied.

    Attributes:
        num_heads: ``H``.
        head_dim: ``D``.
        batch_first: whether samples are the first axis (else the second).
        fused_attn: whether the attention map is never formed, where nobody asks for it.
    """

    # What nn.TransformerEncoderLayer asks for before it takes a path that knows only PyTorch's module.
    _qkv_same_embed_dim = False
    in_proj_weight = in_proj_bias = None

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = attention.num_heads, attention.embed_dim // attention.num_heads
        self.batch_first, self.fused_attn = attention.batch_first, True
        if attention._qkv_same_embed_dim:
            q, k, v = attention.in_proj_weight.chunk(3)
        else:
            q, k, v = attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight
        biases = (None,) * 3 if attention.in_proj_bias is None else attention.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, (q, k, v), biases)
        self.attn_drop = nn.Dropout(attention.dropout)
        self.out_proj = _linear(attention.out_proj.weight, attention.out_proj.bias)
        self.requires_grad_(attention.out_proj.weight.requires_grad)
        self.train(attention.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`torch.nn.MultiheadAttention.forward`.

        Args:
            query, key, value: ``[N, L, E]``, ``[N, S, …]`` with samples first, ``[L, N, E]`` without;
                ``[L, E]`` of one sample.
            key_padding_mask: ``[N, S]``: true, or added to the scores, where a key is not to be seen.
            need_weights: hand the attention maps out too.
            attn_mask: ``[L, S]`` or ``[N·H, L, S]``, likewise.
            average_attn_weights: the mean over the heads.
            is_causal: says what ``attn_mask`` is; it must be given.

        Returns:
            The values ``[N, L, E]`` (axes as the query's) and the maps ``[N, L, S]`` or ``[N, H, L, S]``.

        Raises:
            RuntimeError: ``is_causal`` without a mask, or a mask for another number of heads.
        """
        if is_causal and attn_mask is None:
            raise RuntimeError("is_causal says what attn_mask is, so attn_mask must be given")
        single = query.ndim == 2
        projected = []
        for layer, tensor in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value)):
            rows = layer(tensor[None] if single else tensor if self.batch_first else tensor.transpose(0, 1))
            projected.append(rows.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2))
        q, k, v = projected
        mask = self._mask(attn_mask, key_padding_mask, q)
        maps = None
        if need_weights or not self.fused_attn:
            scores = q @ k.transpose(-2, -1) / self.head_dim**0.5
            maps = self.attn_drop((scores if mask is None else scores + mask).softmax(-1))
            mixed = maps @ v
        else:
            dropout = self.attn_drop.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if maps is not None:
            maps = (maps.mean(1) if average_attn_weights else maps) if need_weights else None
        if single:
            return output[0], None if maps is None else maps[0]
        return output if self.batch_first else output.transpose(0, 1), maps

    def _mask(self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor) -> Tensor | None:
        """Both masks as one that is added to the scores, ``[N or 1, H or 1, L or 1, S]``."""
        found: Tensor | None = None
        if attn_mask is not None:
            found = _added(attn_mask, q.dtype)[None]
            if attn_mask.ndim == 3:
                if len(attn_mask) != len(q) * self.num_heads:
                    raise RuntimeError(
                        f"attn_mask has {len(attn_mask)} maps for {len(q)} samples of {self.num_heads} "
                        "heads; give one of [queries, keys]"
                    )
                found = found.view(len(q), self.num_heads, *attn_mask.shape[1:])
        if key_padding_mask is not None:
            hidden = _added(key_padding_mask, q.dtype).view(-1, 1, 1, key_padding_mask.shape[-1])
            found = hidden if found is None else found + hidden
        return found


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer with copies of a weight ``[O, I]`` and a bias ``[O]``."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    made.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to scores: −∞ where a boolean one is true."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))


def can_be_separated(module: nn.Module) -> bool:
    """Whether a module is PyTorch's attention, without keys that it adds by itself, or timm's of EVA."""
    plain = type(module) is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn
    return plain or _is_eva(module)


def _is_eva(module: nn.Module) -> bool:
    return type(module).__name__ == "EvaAttention" and type(module).__module__ == "timm.models.eva"


def separate_attention(model: nn.Module, *, only: Collection[str] | None = None) -> nn.Module:
    """Put attention with the same weights, whose heads can go, in the place of PyTorch's and of EVA's.

    Args:
        model: changed in place, but when it is an attention module itself.
        only: names of modules; None: all.

    Returns:
        The model.
    """
    for name, module in list(model.named_modules()):
        if name and can_be_separated(module) and (only is None or name in only):
            known: Any = module
            model.set_submodule(name, rotary(known) if _is_eva(known) else SeparateAttention(known))
    for module in model.modules():
        # The stack would hand nested tensors, which only PyTorch's own attention reads, to its layers.
        if isinstance(module, nn.TransformerEncoder) and separated_in(module):
            module.use_nested_tensor = False
    return model


@torch.no_grad()
def rotary(attention: nn.Module) -> nn.Module:
    """An ``AttentionRope`` of timm that computes what an ``EvaAttention`` does, with the same weights.

    Biases of queries, keys (always 0 in EVA) and values become one of the fused projection.
    """
    from timm.layers.attention import AttentionRope

    given: Any = attention
    made: Any = AttentionRope(
        given.proj.out_features,
        given.num_heads,
        attn_head_dim=given.head_dim,
        num_prefix_tokens=given.num_prefix_tokens,
        rotate_half=given.rotate_half,
    )
    parts = ("qkv", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "norm", "gate", "proj")
    for part in (*parts, "attn_drop", "proj_drop", "fused_attn"):
        setattr(made, part, getattr(given, part))
    if given.q_bias is not None:
        bias = torch.cat([given.q_bias, given.k_bias, given.v_bias])
        made.qkv.bias = nn.Parameter(bias, requires_grad=given.q_bias.requires_grad)
    made.was_eva = True
    return made.train(attention.training)


def separated_in(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that :func:`separate_attention` put there."""
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, SeparateAttention) or getattr(module, "was_eva", False)
    )
