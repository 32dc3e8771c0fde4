"""Draw the bundled ``fashion-mnist-sample`` from the whole of Fashion-MNIST.

    python benchmarks/make_sample.py

8,500 training images and 2,000 of the test images, balanced over the classes, seed 0. Written as a
NumPy archive in the layout of ``npz:FILE``.
"""

from __future__ import annotations

import numpy as np

from coprune.data import fashion_mnist
from coprune.data.fashion_mnist import SAMPLE_FILE
from coprune.data.subsample import drawn_indices

train, heldout = fashion_mnist.load(None)
train = train.take(drawn_indices(train.labels, 8500, seed=0))
heldout = heldout.take(drawn_indices(heldout.labels, 2000, seed=0))
np.savez_compressed(
    SAMPLE_FILE,
    x_train=train.images.numpy(),
    y_train=train.labels.numpy().astype(np.uint8),
    x_test=heldout.images.numpy(),
    y_test=heldout.labels.numpy().astype(np.uint8),
    mean=np.array(fashion_mnist.NORMALISATION.mean),
    std=np.array(fashion_mnist.NORMALISATION.std),
)
print(SAMPLE_FILE, SAMPLE_FILE.stat().st_size)
