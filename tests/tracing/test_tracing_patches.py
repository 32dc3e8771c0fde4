"""Rows are what the layer reads: the same as unfold, and the layer's own output comes out of them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from coprune.layers import filters
from coprune.tracing.patches import (
    centred_gram,
    draw_positions,
    fits,
    output_positions,
    pick_outputs,
    read_rows,
)

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def images(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer_on(rows, layer):
    return F.linear(rows, layer.weight.flatten(1), layer.bias)


@given(
    kernel=pairs,
    stride=pairs,
    dilation=pairs,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    seed=st.integers(0, 999),
)
@torch.no_grad()
def test_rows_of_a_convolution_are_those_of_unfold(kernel, stride, dilation, padding, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(3, 4, kernel, stride, padding, dilation).double()
    x = images(seed, 2, 3, 8, 9)
    out = conv(x)
    places = output_positions(conv, out, samples=len(out))
    at = draw_positions("conv", samples=2, places=places, wanted=5, seed=seed)
    unfolded = F.unfold(x, kernel, dilation, padding, stride).transpose(1, 2)  # [N, places, D]
    assert unfolded.shape[1] == places
    rows = read_rows(conv, x, at)
    assert torch.equal(rows, unfolded[torch.arange(2).unsqueeze(1), at].flatten(0, 1))
    torch.testing.assert_close(layer_on(rows, conv), pick_outputs(out, at, last=False))


@pytest.mark.parametrize(
    ("kind", "kernel", "sides"),
    [
        (nn.ConvTranspose1d, (3,), (5,)),
        (nn.ConvTranspose2d, (2, 3), (4, 5)),
        (nn.ConvTranspose3d, (2, 3, 1), (3, 2, 4)),
    ],
)
@pytest.mark.parametrize(
    ("stride", "padding", "beyond", "dilation"), [(1, 0, 0, 1), (2, 0, 0, 1), (2, 1, 1, 2), (3, 0, 2, 1)]
)
@torch.no_grad()
def test_rows_of_a_transposed_convolution_make_its_output(
    kind, kernel, sides, stride, padding, beyond, dilation
):
    torch.manual_seed(0)
    padding = tuple(min(padding, dilation * (k - 1)) for k in kernel)
    conv = kind(3, 4, kernel, stride, padding, beyond, dilation=dilation).double()
    x = images(0, 2, 3, *sides)
    out = conv(x)
    assert fits(conv, x, out)
    places = output_positions(conv, out, samples=len(out))
    at = draw_positions("conv", samples=2, places=places, wanted=places - 1, seed=0)
    made = F.linear(read_rows(conv, x, at), filters(conv).flatten(1), conv.bias)
    torch.testing.assert_close(made, pick_outputs(out, at, last=False))
    if stride > 1 and beyond < stride - 1:
        assert not fits(conv, x, conv(x, [n + stride - 1 - beyond for n in out.shape[2:]]))


@pytest.mark.parametrize(
    ("kind", "kernel", "sides"), [(nn.Conv1d, (3,), (11,)), (nn.Conv3d, (2, 3, 1), (5, 6, 4))]
)
@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 0), (2, 1, 1), (1, 2, 1)])
@torch.no_grad()
def test_signals_and_volumes_are_read_as_the_layer_reads_them(kind, kernel, sides, stride, dilation, padding):
    torch.manual_seed(0)
    conv = kind(3, 4, kernel, stride, padding, dilation).double()
    x = images(0, 2, 3, *sides)
    out = conv(x)
    places = output_positions(conv, out, samples=len(out))
    assert places == out[0, 0].numel()
    at = draw_positions("conv", samples=2, places=places, wanted=places - 1, seed=0)
    torch.testing.assert_close(layer_on(read_rows(conv, x, at), conv), pick_outputs(out, at, last=False))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), "same"])
@torch.no_grad()
def test_every_kind_of_padding_is_read_as_the_layer_reads_it(mode, padding):
    conv = nn.Conv2d(2, 3, (5, 3), padding=padding, padding_mode=mode).double()
    x = images(0, 3, 2, 6, 5)
    out = conv(x)
    at = draw_positions(
        "conv", samples=3, places=output_positions(conv, out, samples=len(out)), wanted=100, seed=0
    )
    torch.testing.assert_close(layer_on(read_rows(conv, x, at), conv), pick_outputs(out, at, last=False))


class PadsItself(nn.Conv2d):
    """TensorFlow's SAME: as many zeros as the stride needs, more of them behind than in front."""

    def forward(self, x):
        sides = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(x.shape[2:], self.kernel_size, self.stride, self.dilation, strict=True)
        ]
        around = [part for side in reversed(sides) for part in (side // 2, side - side // 2)]
        x = F.pad(x, around, value=self.level)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.also, self.dilation)

    level, also = 0.0, 0


@pytest.mark.parametrize("also", [0, 1, (0, 2), "valid"])
@pytest.mark.parametrize(
    ("stride", "dilation", "level"), [(1, 1, 0.0), (2, 1, 0.0), (2, 2, 0.5), (1, 2, -1.0)]
)
@torch.no_grad()
def test_a_layer_that_pads_in_its_own_forward_is_read_as_it_reads(also, stride, dilation, level):
    # Once a bug: rows were those of a layer without padding, and what was solved on them did harm.
    conv = PadsItself(2, 3, (5, 2), stride=stride, dilation=dilation).double()
    conv.level, conv.also = level, also
    x = images(0, 3, 2, 9, 7)
    out = conv(x)
    at = draw_positions(
        "conv", samples=3, places=output_positions(conv, out, samples=len(out)), wanted=100, seed=0
    )
    torch.testing.assert_close(layer_on(read_rows(conv, x, at), conv), pick_outputs(out, at, last=False))
    # Of some channels alone, as a group's statistics read them.
    part = read_rows(conv, x[:, 1:], at)
    assert torch.equal(part, read_rows(conv, x, at).view(len(part), 2, -1)[:, 1])


@torch.no_grad()
def test_an_input_that_does_not_lie_in_order_is_read_alike():
    conv = nn.Conv2d(3, 4, 3, 2, 1).double()
    x = images(1, 2, 3, 7, 6)
    at = draw_positions("conv", samples=2, places=12, wanted=5, seed=0)
    for same in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        assert torch.equal(read_rows(conv, same, at), read_rows(conv, x, at))


@pytest.mark.parametrize("shape", [(6, 7), (6, 4, 7), (6, 2, 3, 7)])
@torch.no_grad()
def test_a_linear_layer_reads_one_row_a_sample_or_a_token(shape):
    layer = nn.Linear(7, 5).double()
    x = images(2, *shape)
    out = layer(x)
    places = output_positions(layer, out, samples=len(out))
    assert places == x[0].numel() // 7
    at = draw_positions("fc", samples=6, places=places, wanted=3, seed=0)
    rows = read_rows(layer, x, at)
    flat = x.reshape(6, -1, 7)
    assert torch.equal(rows, torch.cat([flat[i, at[i]] for i in range(6)]))
    torch.testing.assert_close(layer_on(rows, layer), pick_outputs(out, at, last=True))


@given(places=st.integers(1, 40), wanted=st.integers(1, 50), seed=st.integers(0, 99))
def test_places_are_drawn_without_repetition(places, wanted, seed):
    at = draw_positions("layer", samples=7, places=places, wanted=wanted, seed=seed)
    assert at.shape == (7, min(places, wanted))
    assert at.min() >= 0
    assert at.max() < places
    assert all(len(set(row)) == len(row) for row in at.tolist())


def test_places_are_a_function_of_name_and_seed():
    def drawn(name, seed):
        return draw_positions(name, samples=5, places=100, wanted=9, seed=seed)

    torch.manual_seed(0)
    first = drawn("a", 0)
    torch.manual_seed(1)
    assert torch.equal(first, drawn("a", 0))
    assert not torch.equal(first, drawn("a", 1))
    assert not torch.equal(first, drawn("b", 0))
    assert not torch.equal(first[0], first[1])  # other places for every sample


@given(st.integers(1, 5), st.sampled_from((1, 255, 256, 257, 600)))
def test_the_gram_matrix_is_that_of_one_product(rows, width):
    values, mean = torch.randn(rows, width, dtype=torch.float64), torch.randn(width, dtype=torch.float64)
    centred = values - mean
    torch.testing.assert_close(centred_gram(values, mean), centred.T @ centred)


@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float64, 1e-13), (torch.float32, 5e-6), (torch.float16, 5e-6)]
)
def test_products_are_added_up_in_float64(dtype, off):
    values = (torch.randn(20_000, 5, generator=torch.Generator().manual_seed(0)) + 10).to(dtype)
    mean = values.mean(0, dtype=torch.float64)
    centred = values.double() - mean
    wanted, found = centred.T @ centred, centred_gram(values, mean)
    assert found.dtype == torch.float64
    assert (found - wanted).abs().max() < off * wanted.abs().max()
