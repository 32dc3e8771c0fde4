"""torchvision's detectors, which hand back boxes, are pruned by what their heads say."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

import coprune
import tiny
from coprune.tracing.detectors import Detections, heads_of
from coprune.tracing.forward import run


def backbone(width=8):
    layers = [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(12, width, 1),
    ]
    net = nn.Sequential(*layers)
    net.out_channels = width
    return net


def anchors(shapes):
    return AnchorGenerator(((16, 32),), (shapes,))


def detector(name):
    size = {"min_size": 32, "max_size": 32}
    made = {
        "retinanet": lambda: RetinaNet(backbone(), 3, anchor_generator=anchors((1.0,)), **size),
        "fcos": lambda: FCOS(backbone(32), 3, anchor_generator=AnchorGenerator(((8,),), ((1.0,),)), **size),
        "faster r-cnn": lambda: FasterRCNN(
            backbone(),
            None,
            rpn_anchor_generator=anchors((1.0, 2.0)),
            box_roi_pool=MultiScaleRoIAlign(["0"], 3, 2),
            box_head=TwoMLPHead(8 * 9, 8),
            box_predictor=FastRCNNPredictor(8, 3),
            rpn_post_nms_top_n_test=4,
            **size,
        ),
    }
    torch.manual_seed(0)
    return tiny.randomise(made[name]()).eval()


def pictures(count, size=32):
    drawn = torch.Generator().manual_seed(0)
    return [torch.rand(3, size, size + i % 2, generator=drawn) for i in range(count)]


def test_its_output_stays_a_list_of_boxes_and_has_what_its_heads_say():
    model, images = detector("retinanet"), pictures(2)
    with torch.no_grad():
        found = run(model, images)
    assert isinstance(found, Detections)
    assert [set(boxes) for boxes in found] == [{"boxes", "scores", "labels"}] * 2
    assert set(found.heads[0]) == {"cls_logits", "bbox_regression"}
    assert not heads_of(nn.Linear(2, 2))


@pytest.mark.parametrize("name", ["retinanet", "fcos", "faster r-cnn"])
def test_a_detector_is_pruned_without_labels(name):
    model, images = detector(name), pictures(32)  # of half as many, three judge
    found = coprune.prune(
        model, calibration=[[images[:16]], [images[16:]]], keep_macs=0.8, latency_batches=(1,)
    )
    cut = [g for g in found.plan.groups if len(g.kept) < g.size]
    assert cut
    assert not any("roi_heads" in g.name for g in found.plan.groups)
    assert found.result.stages[-1].metric == "r2"
    _, pruned, recovered = (stage.value for stage in found.result.stages)
    assert recovered > max(pruned, 0.3)
    assert set(found.model(pictures(1))[0]) == {"boxes", "scores", "labels"}
    if name == "faster r-cnn":
        reasons = {s.layer: s.reason for s in found.plan.skipped}
        assert reasons["roi_heads.box_head.fc6"] == "nothing that counts depends on it"
