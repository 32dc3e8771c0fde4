"""Prunes a network of torchvision at 224 × 224 under a limit of memory; a script: a limit is a process's.

python memory_limit.py NETWORK SAMPLES GIGABYTES RECOVERY
"""

import resource
import sys
from pathlib import Path

import torch
import torchvision

import coprune

name, samples, gigabytes, recovery = sys.argv[1:]
torch.set_num_threads(1)
torch.manual_seed(0)
net = getattr(torchvision.models, name)().eval()
images = torch.nn.functional.interpolate(torch.randn(int(samples), 3, 28, 28), size=(224, 224))
images += 0.1 * torch.randn_like(images)
for norm in (m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
    norm.momentum = 0.5  # so that a few passes give it statistics
    norm.train()
with torch.no_grad():
    for at in range(0, 64, 16):
        net(images[at : at + 16])
net.eval()

status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
held = 1024 * int(status["VmData"].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (held + int(float(gigabytes) * 2**30),) * 2)
found = coprune.prune(
    net,
    calibration=list(images.split(50)),
    keep_macs=0.7,
    recovery=recovery,
    latency_batches=(1,),
    force=True,
)
print(f"{found.result.stages[-1].macs / found.result.stages[0].macs:.3f}")
