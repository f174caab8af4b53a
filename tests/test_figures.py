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


def test_columns_stand_in_their_order_under_their_heads_upright_and_in_true_greys():
    columns = list(torch.rand(3, 32, 1, 28, 28))
    figure = columns_grid(columns, ["x", "x'", "x''"], numbered=True)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["x", "x'", "x''"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [str(i + 1) for i in range(32)]
    picture = figure.axes[0].images[0]
    assert (picture.get_clim(), picture.get_cmap().name, picture.origin) == ((0, 1), "gray", "upper")
    for grid, kinds in ((cells(figure, 3), 3), (cells(pairs_grid(*columns[:2]), 8), 2)):
        assert len(grid) == 32 * kinds
        for i, cell in enumerate(grid):
            np.testing.assert_array_equal(cell, columns[i % kinds][i // kinds, 0])


def test_curves_show_both_parts_the_best_epoch_and_the_drops():
    rates = [2e-3] * 9 + [5e-4] * 4 + [1e-4] * 7
    history = [
        {"epoch": i, "learning_rate": rate, "train": {"elbo": -100.0 / (i + 1)}, "val": {"elbo": -110.0 / (i + 1)}}
        for i, rate in enumerate(rates)
    ]
    results = {"history": history, "best_epoch": 17, "images": {"train": 4000, "val": 500}}
    figure = elbo_curves(results)
    assert "training (4,000)" in [text.get_text() for text in figure.legends[0].get_texts()]
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
