"""Task 2e: p(X|z) whose pixels know their neighbours: p(x_d | z, earlier pixels near d), column by column.

By the chain rule their product is a probability of whole images, and since the left half comes first, log p(x_L|z) is
still the sum over its pixels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import pad

REACH = 3  # pixels; a pixel sees this many columns to its left, as far up and down, and the pixels above itself
SATURATED = 0.98  # ink is brighter: a third of all pixels that are not black have the levels 252 to 254


class Context(nn.Module):
    """The decoder's hidden numbers of each pixel (B, H, h, w), and the pixels before it, to raw channels (B, C, h, w).

    No mask is needed: each convolution is given the canvas cut so that its output at a pixel lies beside what it saw.
    """

    def __init__(self, hidden: int, channels: int):
        super().__init__()
        self.left = nn.Conv2d(3, hidden, kernel_size=(2 * REACH + 1, REACH), bias=False)
        self.above = nn.Conv2d(3, hidden, kernel_size=(REACH, 1), bias=False)
        for layer in (self.left, self.above):
            nn.init.zeros_(layer.weight)  # begin with independent pixels
        self.head = nn.Sequential(nn.SiLU(), nn.Conv2d(hidden, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, hidden: Tensor, canvas: Tensor) -> Tensor:
        """canvas: features of the pixels, framed, (B, 3, h + 2 REACH, w + REACH)."""
        left, above = canvas[..., :-1], canvas[:, :, : -REACH - 1, REACH:]
        return self.head(hidden + self.left(left) + self.above(above))


def features(x: Tensor) -> Tensor:
    """x (B, 1, h, w) in [0, 1]: its grey value, whether it is not black, whether it is ink: (B, 3, h, w)."""
    return torch.cat([x, (x > 0).to(x.dtype), (x > SATURATED).to(x.dtype)], dim=1)


def framed(x: Tensor) -> Tensor:
    """x with a black frame where pixels look beyond the image: (B, C, h + 2 REACH, w + REACH)."""
    return pad(x, (REACH, 0, REACH, REACH))


class NeighbouringPixels(Distribution):
    """Images, given the decoder's hidden numbers (B, H, h, w). pixel makes of raw channels one pixel's distribution."""

    def __init__(self, hidden: Tensor, context: Context, pixel: Callable[[Tensor], Distribution]):
        self.hidden, self.context, self.pixel = hidden, context, pixel
        super().__init__((len(hidden), 1, *hidden.shape[2:]))

    def given(self, x: Tensor) -> Distribution:
        """p(X_d | z, the pixels of x before d) for every pixel d of x (B, 1, h, w)."""
        return self.pixel(self.context(self.hidden, framed(features(x))))

    def log_prob(self, x: Tensor) -> Tensor:
        return self.given(x).log_prob(x)

    @torch.no_grad()
    def sample(self) -> Tensor:
        """One image for each z, pixel by pixel."""
        x = torch.zeros(self.batch_shape, device=self.hidden.device)
        canvas = framed(features(x))
        height, width = x.shape[2:]
        for column in range(width):
            for row in range(height):
                here = ..., slice(row, row + 1), slice(column, column + 1)
                seen = canvas[:, :, row : row + 2 * REACH + 1, column : column + REACH + 1]  # a canvas of one pixel
                x[here] = self.pixel(self.context(self.hidden[here], seen)).sample()
                canvas[:, :, REACH + row, REACH + column] = features(x[here]).flatten(1)
        return x
