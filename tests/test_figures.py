import json

from common.figures import columns_grid, elbo_curves, image_grid, latent_scatter, pairs_grid, save_figure
from common.runs import Source

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image


def cells(figure, columns):
    """The images of a grid, row by row."""
    picture = np.asarray(figure.axes[0].images[0].get_array())
    rows = (picture.shape[0] - 2) // 30
    corners = [(2 + 30 * row, 2 + 30 * column) for row in range(rows) for column in range(columns)]
    return [picture[y : y + 28, x : x + 28] for y, x in corners]


def test_reconstruction_i_stands_right_beside_image_i_and_upright():
    x, x_new = torch.rand(32, 1, 28, 28), torch.rand(32, 1, 28, 28)
    grid = cells(pairs_grid(x, x_new), 8)
    assert len(grid) == 64
    for i in range(32):
        np.testing.assert_array_equal(grid[2 * i], x[i, 0])
        np.testing.assert_array_equal(grid[2 * i + 1], x_new[i, 0])


def test_columns_stand_in_their_order_under_their_heads():
    columns = [torch.rand(4, 1, 28, 28) for _ in range(3)]
    figure = columns_grid(columns, ["x", "x'", "x''"], numbered=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x", "x'", "x''"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1", "2", "3", "4"]
    for i, cell in enumerate(cells(figure, 3)):
        np.testing.assert_array_equal(cell, columns[i % 3][i // 3, 0])


def test_greys_are_not_stretched():
    figure = image_grid(torch.full((4, 1, 28, 28), 0.5), columns=2)
    (picture,) = figure.axes[0].images
    assert picture.get_clim() == (0, 1)
    assert picture.get_cmap().name == "gray"
    assert picture.origin == "upper"


def test_curves_show_both_parts_the_best_epoch_and_the_drops():
    rates = [2e-3] * 9 + [5e-4] * 4 + [1e-4] * 7
    history = [
        {"epoch": i, "learning_rate": rate, "train": {"elbo": -100.0 / (i + 1)}, "val": {"elbo": -110.0 / (i + 1)}}
        for i, rate in enumerate(rates)
    ]
    results = {"history": history, "best_epoch": 17, "images": {"train": 4000, "val": 500}}
    figure = elbo_curves(results)
    assert "training (4,000 images)" in [text.get_text() for text in figure.legends[0].get_texts()]
    for axis in figure.axes:
        *drops, train, val, best = axis.lines
        assert [line.get_xdata()[0] for line in drops] == [8, 12]
        assert train.get_ydata()[-1] == -5
        assert val.get_ydata()[-1] == -5.5
        assert set(best.get_xdata()) == {17}


def test_ten_digits_have_ten_colours():
    figure, axis = plt.subplots()
    latent_scatter(axis, torch.randn(100, 2), torch.arange(10).repeat(10), named=[3, 5])
    assert len({tuple(points.get_facecolor()[0]) for points in axis.collections}) == 10
    assert [text.get_text() for text in axis.texts] == ["3", "5"]
    plt.close(figure)


@pytest.mark.parametrize("dataset", ["mnist", "mnist5k"])
def test_same_figure_same_bytes_its_source_is_in_it_and_the_stand_in_is_marked(dataset, capsys):
    source, contents = Source(dataset, "task_1/sample.py --run a"), []
    source.weights["a"] = "0123"
    for _ in range(2):
        figure = image_grid(torch.zeros(4, 1, 28, 28), columns=2)
        path = save_figure(figure, "a-samples", source)
        contents.append(path.read_bytes())
        assert any("stand-in" in text.get_text() for text in figure.texts) == (dataset != "mnist")
    assert contents[0] == contents[1]
    assert str(path) in capsys.readouterr().out
    assert ("mnist5k" in path.parts) == (dataset == "mnist5k")
    with Image.open(path) as image:
        assert json.loads(image.text["Source"]) == {"command": "task_1/sample.py --run a", "weights": {"a": "0123"}}
