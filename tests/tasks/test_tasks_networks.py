"""Networks of other libraries, with random weights: they are cut, and the budget is met."""

import pytest
import torch

import coprune
from coprune.surgery import masked
from tiny import randomise

QUICK = {
    "method": "magnitude",
    "allocation": "uniform",
    "recovery": "none",
    "latency_batches": (),
    "force": True,
}


def images(count, side, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def lraspp():
    models = pytest.importorskip("torchvision.models.segmentation")
    return models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)


def fcn():
    """With an auxiliary head, and a block a stage of its ResNet: the kinds of ties are all there."""
    models = pytest.importorskip("torchvision.models")
    body = models.ResNet(models.resnet.BasicBlock, [1] * 4)
    body = models._utils.IntermediateLayerGetter(body, {"layer3": "aux", "layer4": "out"})
    heads = models.segmentation.fcn.FCNHead(512, 3), models.segmentation.fcn.FCNHead(256, 3)
    return models.segmentation.FCN(body, *heads)


@pytest.mark.parametrize("make", [lraspp, fcn])
def test_segmentation_networks_of_torchvision(make):
    torch.manual_seed(0)
    model = randomise(make())
    found = coprune.prune(
        model,
        calibration=[images(2, 64)],
        task="segmentation",
        keep_macs=0.6,
        units=("inner", "coupled"),
        **QUICK,
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    assert (base.metric, base.value) == ("agreement", 1)
    assert last.macs / base.macs == pytest.approx(0.6, abs=0.02)
    model, smaller, wide = model.double(), found.model.double(), images(2, 96).double()
    with torch.no_grad():
        with masked(model, found.plan.groups):
            due = model(wide)
        for name, logits in smaller(wide).items():
            assert logits.shape == (2, 3, 96, 96)
            assert torch.allclose(logits, due[name], rtol=1e-6, atol=1e-6 * float(due[name].abs().max()))


STEPS = torch.tensor([0, 100, 400, 900])


def diffusers():
    return pytest.importorskip("diffusers")


def unet():
    """Images and a time step."""
    model = diffusers().UNet2DModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
    )
    return model, {"sample": images(4, 16), "timestep": STEPS}


def conditioned_unet():
    """And what a text encoder made: Stable Diffusion's."""
    model = diffusers().UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=4,
        cross_attention_dim=24,
    )
    text = torch.rand(4, 6, 24, generator=torch.Generator().manual_seed(1))
    return model, {"sample": images(4, 16), "timestep": STEPS, "encoder_hidden_states": text}


def autoencoder():
    """Its latent autoencoder."""
    model = diffusers().AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        sample_size=32,
    )
    return model, {"sample": images(4, 32)}


def diffusion_transformer():
    """Patches, modulated by a time step and a class."""
    model = diffusers().DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=3,
        out_channels=3,
        num_layers=2,
        sample_size=16,
        norm_num_groups=8,
        num_embeds_ada_norm=10,
    )
    return model, {"hidden_states": images(4, 16), "timestep": STEPS, "class_labels": torch.arange(4)}


@pytest.mark.parametrize("make", [unet, conditioned_unet, autoencoder, diffusion_transformer])
def test_diffusion_models_and_what_is_around_them(make):
    torch.manual_seed(0)
    model, batch = make()
    model.eval()
    found = coprune.prune(
        model, calibration=[batch], task="reconstruction", keep_macs=0.8, units=("inner", "coupled"), **QUICK
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    assert (base.metric, base.value) == ("r2", 1)
    assert last.macs / base.macs == pytest.approx(0.8, abs=0.02)
    model, smaller = model.double(), found.model.double()
    wide = {n: t.double() if t.is_floating_point() else t for n, t in batch.items()}
    with torch.no_grad():
        with masked(model, found.plan.groups):
            due = model(**wide).sample
        made = smaller(**wide).sample
    assert made.shape == due.shape
    assert torch.allclose(made, due, rtol=1e-6, atol=1e-6 * float(due.abs().max()))
