"""Transformers of timm, torchvision and PyTorch, made small, for the zoo of :mod:`tiny_transformers`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from coprune.models.attention import separate_attention

WORDS, CLASSES, TOKENS = 50, 3, 7


def timm_net(**settings: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=12,
        patch_size=4,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=32,
        depth=2,
        num_heads=4,
        mlp_ratio=1.25,
        **settings,
    )


def timm_gated_net() -> nn.Module:
    from timm.layers import SwiGLU

    return timm_net(mlp_layer=SwiGLU)


def timm_packed_net() -> nn.Module:
    from timm.layers import SwiGLUPacked

    return timm_net(mlp_layer=SwiGLUPacked)


def timm_rotary_net(**settings: Any) -> nn.Module:
    from timm.models.eva import Eva

    return separate_attention(
        Eva(
            img_size=12,
            patch_size=4,
            in_chans=1,
            num_classes=CLASSES,
            embed_dim=32,
            depth=2,
            mlp_ratio=1.25,
            use_rot_pos_emb=True,
            **settings,
        )
    )


def timm_swin_net() -> nn.Module:
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=16,
        patch_size=2,
        in_chans=1,
        num_classes=CLASSES,
        embed_dim=16,
        depths=(2, 1),
        num_heads=(4, 4),
        window_size=4,
        mlp_ratio=1.25,
    )


def torchvision_net() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return separate_attention(
        VisionTransformer(
            image_size=12,
            patch_size=4,
            num_layers=2,
            num_heads=4,
            hidden_dim=32,
            mlp_dim=40,
            num_classes=CLASSES,
        )
    )


class Encoder(nn.Module):
    """A user's own network around PyTorch's encoder layers, which take samples second unless told."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 40, batch_first=batch_first, norm_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.patches, self.head = nn.Conv2d(1, 32, 4, 4), nn.Linear(32, CLASSES)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2)
        tokens = tokens.transpose(1, 2) if self.batch_first else tokens.permute(2, 0, 1)
        return self.head(self.encoder(tokens).mean(1 if self.batch_first else 0))


def encoder_net(*, batch_first: bool) -> nn.Module:
    return separate_attention(Encoder(batch_first=batch_first))


def swin_net(kind: str) -> nn.Module:
    from torchvision.models import swin_transformer as library

    return library.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 4],
        window_size=[2, 2],
        mlp_ratio=1.25,
        num_classes=CLASSES,
        block=getattr(library, f"SwinTransformerBlock{kind}"),
        downsample_layer=getattr(library, f"PatchMerging{kind}"),
    )


def maxvit_net() -> nn.Module:
    from torchvision.models.maxvit import MaxVit

    return MaxVit(
        input_size=(16, 16),
        stem_channels=8,
        partition_size=2,
        block_channels=[8, 16],
        block_layers=[1, 1],
        head_dim=4,
        stochastic_depth_prob=0.0,
        mlp_ratio=3,
        num_classes=CLASSES,
    )
