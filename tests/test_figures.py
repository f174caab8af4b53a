import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from common.figures import elbo_curves, image_grid, latent_scatter, mosaic, pairs_grid, save_figure


def shown(figure):
    return [np.asarray(axis.images[0].get_array()) for axis in figure.axes]


def test_reconstruction_i_stands_right_beside_image_i_and_upright():
    x, x_new = torch.rand(32, 1, 28, 28), torch.rand(32, 1, 28, 28)
    cells = shown(pairs_grid(x, x_new))
    assert len(cells) == 64
    for i in range(32):
        np.testing.assert_array_equal(cells[2 * i], x[i, 0])
        np.testing.assert_array_equal(cells[2 * i + 1], x_new[i, 0])


def test_greys_are_not_stretched():
    figure = image_grid(torch.full((4, 1, 28, 28), 0.5), columns=2)
    assert all(axis.images[0].get_clim() == (0, 1) for axis in figure.axes)
    assert all(axis.images[0].get_cmap().name == "gray" for axis in figure.axes)


def test_mosaic_is_row_by_row():
    images = torch.rand(6, 1, 28, 28)
    picture = mosaic(images, columns=3)
    assert picture.shape == (56, 84)
    assert torch.equal(picture[28:, 28:56], images[4, 0])


def test_curves_show_both_parts_the_best_epoch_and_the_drops():
    history = [{"epoch": i, "train": {"elbo": -100.0 / (i + 1)}, "val": {"elbo": -110.0 / (i + 1)}} for i in range(20)]
    for axis in elbo_curves(history, best_epoch=17, drops=[8, 12]).axes:
        train, val, best, *drops = axis.lines
        assert [line.get_xdata()[0] for line in drops] == [8, 12]
        assert train.get_ydata()[-1] == -5
        assert val.get_ydata()[-1] == -5.5
        assert set(best.get_xdata()) == {17}


def test_ten_digits_have_ten_colours():
    figure, axis = plt.subplots()
    latent_scatter(axis, torch.randn(100, 2), torch.arange(10).repeat(10))
    assert len({tuple(points.get_facecolor()[0]) for points in axis.collections}) == 10
    assert axis.get_aspect() == 1
    plt.close(figure)


@pytest.mark.parametrize("name", ["gaussian-k32-curves", "digits-gaussian-k32-curves"])
def test_same_figure_same_bytes_and_the_stand_in_is_marked(name, capsys):
    paths = []
    for _ in range(2):
        figure = image_grid(torch.zeros(4, 1, 28, 28), columns=2)
        path = save_figure(figure, name)
        paths.append(path.read_bytes())
        assert any("not MNIST" in text.get_text() for text in figure.texts) == name.startswith("digits")
    assert paths[0] == paths[1]
    assert str(path) in capsys.readouterr().out
