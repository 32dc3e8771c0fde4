"""Small networks of several tasks from end to end: calibrated without targets, judged by their metric."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import coprune
from coprune.errors import UserError


def block(reads, makes):
    return nn.Sequential(nn.Conv2d(reads, makes, 3, padding=1), nn.BatchNorm2d(makes), nn.ReLU())


class TinyUNet(nn.Module):
    """One level down and, by a transposed convolution, up again to a skip."""

    def __init__(self):
        super().__init__()
        self.top, self.deep = (
            nn.Sequential(block(1, 8), block(8, 8)),
            nn.Sequential(block(8, 16), block(16, 16)),
        )
        self.up, self.back, self.head = nn.ConvTranspose2d(16, 8, 2, 2), block(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        top = self.top(x)
        return self.head(self.back(torch.cat([self.up(self.deep(F.max_pool2d(top, 2))), top], 1)))


def squares(count, seed):
    """Bright squares in noise and where they are."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 16, 16, dtype=torch.long)
    for mask, (y, x) in zip(
        masks, torch.randint(0, 10, (count, 2), generator=generator).tolist(), strict=True
    ):
        mask[y : y + 6, x : x + 6] = 1
    return torch.rand(count, 1, 16, 16, generator=generator) * 0.8 + 0.4 * masks.unsqueeze(1), masks


def trained(model, inputs, targets, loss, *, steps=60):
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        at = torch.arange(step * 20, step * 20 + 20) % len(inputs)
        optimizer.zero_grad()
        loss(model(inputs[at]), targets[at]).backward()
        optimizer.step()
    return model.eval()


def heldout(*tensors):
    return DataLoader(TensorDataset(*tensors), batch_size=20)


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return trained(TinyUNet(), *squares(200, 0), F.cross_entropy)


def test_a_unet_keeps_its_miou_without_masks(unet):
    found = coprune.prune(
        unet,
        calibration=DataLoader(squares(100, 1)[0], batch_size=50),
        eval=heldout(*squares(60, 2)),
        task="segmentation",
        keep_macs=0.6,
        units=("inner", "coupled"),
        latency_batches=(),
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    assert (base.metric, base.unit, base.higher_is_better) == ("miou", "", True)
    assert base.value > 0.85
    assert last.value > base.value - 0.03
    assert last.macs / base.macs == pytest.approx(0.6, abs=0.05)
    assert last.interval[0] < last.value < last.interval[1]
    assert found.model(squares(2, 3)[0]).shape == (2, 2, 16, 16)


def test_max_drop_is_in_miou(unet):
    found = coprune.prune(
        unet,
        train=heldout(*squares(100, 1)),
        validation=heldout(*squares(100, 4)),
        eval=heldout(*squares(60, 2)),
        task="segmentation",
        max_drop=0.03,
        latency_batches=(),
    )
    judged = found.result.judged
    assert (judged.metric, judged.unit) == ("miou", "")
    assert judged.interval[0] <= judged.found <= judged.interval[1]
    assert judged.found <= 0.03
    assert found.result.stages[-1].macs < found.result.stages[0].macs


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 12, 3, 2, 1), nn.ReLU(), nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU())
        self.up = nn.Sequential(
            nn.Conv2d(12, 12, 3, 1, 1), nn.ReLU(), nn.Conv2d(12, 4, 1), nn.PixelShuffle(2)
        )

    def forward(self, x):
        return {"reconstruction": self.up(self.down(x))}


def test_an_autoencoder_is_judged_by_its_psnr():
    torch.manual_seed(0)
    images = squares(200, 0)[0].clamp(0, 1)
    model = trained(Autoencoder(), images, images, lambda out, due: F.mse_loss(out["reconstruction"], due))
    found = coprune.prune(
        model,
        calibration=DataLoader(images, batch_size=50),
        eval=heldout(images[:40], images[:40]),
        task="reconstruction",
        keep_macs=0.8,
        latency_batches=(),
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    with torch.no_grad():
        error = (model(images[:40])["reconstruction"] - images[:40]).square().mean((1, 2, 3))
    assert base.metric == "psnr"
    assert base.value == pytest.approx(float((-10 * error.log10()).mean()), rel=1e-4)
    assert base.value - 3 < last.value
    assert last.macs < base.macs


class Heads(nn.Module):
    """A box and how sure it is, at two sizes, and what it computed them from, as a tuple."""

    def __init__(self):
        super().__init__()
        self.body, self.far = nn.Sequential(block(1, 8), block(8, 8)), block(8, 8)
        self.near_head, self.far_head = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x):
        near = self.body(x)
        far = self.far(F.max_pool2d(near, 2))
        return near, {"heads": [self.near_head(near), self.far_head(far)]}


def found_squares(model, batches):
    """Share of the squares whose middle has the largest score."""
    right = total = 0
    for images, targets in batches:
        score = model(images)[1]["heads"][0][:, 0].flatten(1).argmax(1)
        inside = targets["mask"].flatten(1).gather(1, score[:, None])
        right, total = right + int(inside.sum()), total + len(images)
    return right / total


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    images, masks = squares(200, 0)

    def loss(output, due):
        return F.binary_cross_entropy_with_logits(output[1]["heads"][0][:, 0], due.float())

    return trained(Heads(), images, masks, loss)


def boxes(count, seed):
    images, masks = squares(count, seed)
    return [(x, {"mask": y}) for x, y in zip(images.split(20), masks.split(20), strict=True)]


def test_heads_of_a_detector_count_and_the_user_s_metric_judges(detector):
    found = coprune.prune(
        detector,
        calibration=DataLoader(squares(100, 1)[0], batch_size=50),
        eval=boxes(60, 2),
        task="detection",
        outputs="1.heads",
        metric=found_squares,
        keep_macs=0.7,
        latency_batches=(),
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    assert base.metric == "found_squares"
    with torch.no_grad():
        assert base.value == pytest.approx(found_squares(detector, boxes(60, 2)))
        assert last.value == pytest.approx(found_squares(found.model, boxes(60, 2)))
    assert base.value > 0.9
    assert last.value > base.value - 0.1
    assert last.macs < base.macs


def test_without_a_metric_agreement_judges(detector):
    found = coprune.prune(
        detector,
        calibration=DataLoader(squares(100, 1)[0], batch_size=50),
        outputs="1.heads",
        keep_macs=0.7,
        latency_batches=(),
    )
    base, last = found.result.stages[0], found.result.stages[-1]
    assert (base.metric, base.value) == ("r2", 1)
    assert 0.5 < last.value < 1


def test_a_part_that_the_output_has_not_is_said(detector):
    with pytest.raises(UserError, match=r"has no 'boxes'; it has heads"):
        coprune.prune(
            detector,
            calibration=DataLoader(squares(40, 1)[0], batch_size=20),
            outputs="1.boxes",
            keep_macs=0.7,
        )


def test_a_classifier_needs_no_classes():
    torch.manual_seed(0)
    images, masks = squares(200, 0)
    classes = (masks.flatten(1).float().argmax(1) // 16 > 5).long()
    model = nn.Sequential(block(1, 8), block(8, 8), nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(128, 2))
    model = trained(model, images, classes, F.cross_entropy)
    calibration, asked = DataLoader(images[:100], batch_size=50), {"task": "classification", "keep_macs": 0.6}

    def figures(**given):
        return coprune.prune(model, latency_batches=(), **{**asked, **given}).result.stages[-1]

    alone = figures(calibration=calibration, eval=DataLoader(images[100:], batch_size=50))
    assert alone.metric == "agreement"
    assert alone.value > 0.8
    judged = figures(calibration=calibration, eval=heldout(images[100:], classes[100:]))
    assert judged.metric == "top1"
    with pytest.raises(UserError, match="it looks at classes, and these samples have no class each"):
        figures(calibration=calibration, method="cosep")


@pytest.mark.parametrize(
    "targets", [[[1e12]], [[1e12], [1e12]], [[1.0], [1.0001]]], ids=["one", "alike", "near"]
)
def test_a_fit_of_samples_that_are_alike_says_nothing_and_is_no_crash(targets):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1)).eval()
    inputs = torch.randn(40, 4)
    found = coprune.prune(
        model,
        calibration=[inputs],
        eval=[(inputs[: len(targets)], torch.tensor(targets))],
        task="regression",
        keep_macs=0.6,
        latency_batches=(),
        force=True,
    )
    assert -1e9 <= found.result.stages[-1].value < -1e3
