import numpy as np
import pytest

from ganseg_dist.synthesis.generate import Generated, GeneratedSlices
from ganseg_dist.synthesis.memorisation import audit
from ganseg_dist.synthesis.neighbours import neighbour_figure


def images(seed, count, channels):
    return np.random.default_rng(seed).uniform(-1, 1, (count, channels, 16, 16)).astype(np.float32)


def panels(figure, rows):
    return np.array(figure.axes, object).reshape(rows, -1)


def pixels_of(axes):
    return np.asarray(axes.get_images()[0].get_array())


@pytest.fixture
def generated_images():
    mask = np.zeros((12, 2, 16, 16), np.uint8)
    mask[:, 0, 2:10, 2:10] = 1
    mask[:, 1, 4:6, 4:6] = 1
    return GeneratedSlices(images(0, 12, 2), mask, images(1, 12, 2), ("TCGA-1",) * 12)


def test_mask_conditioned_figure_shows_mask_image_real_and_nearest(generated_images):
    training = images(2, 40, 2)
    training[7] = generated_images.image[5]
    found = audit(generated_images.image, training)
    figure = neighbour_figure(generated_images, found, training, ("t1", "flair"), ("wt", "tc"))
    lines = panels(figure, 4)
    assert [line[0].get_ylabel().replace("\n", " ") for line in lines] == [
        "mask",
        "synthetic",
        "real image of this mask",
        "nearest training image",
    ]
    assert lines.shape[1] == 10
    copied = lines[:, 0]  # the nearest comes first
    assert copied[0].get_title().splitlines()[-1] == "memorised"
    assert (pixels_of(copied[1]) == pixels_of(copied[3])).all()
    assert not (pixels_of(copied[1]) == pixels_of(copied[2])).all()
    assert len(np.unique(pixels_of(copied[0]).reshape(-1, 3), axis=0)) == 3  # background and two regions
    percentiles = [float(axes.get_title().split()[1]) for axes in lines[0]]
    assert percentiles == sorted(percentiles)
    title = figure.get_suptitle()
    assert "Synthetic images generated from masks, flair shown of t1, flair: 10 of n = 12" in title
    assert "TCGA" not in title + "".join(axes.get_title() for axes in figure.axes)


def test_mask_conditioned_figure_labels_phantom(generated_images):
    training = images(2, 40, 2)
    found = audit(generated_images.image, training)
    for phantom in (False, True):
        figure = neighbour_figure(generated_images, found, training, ("t1", "flair"), ("wt", "tc"), phantom=phantom)
        assert ("phantom" in panels(figure, 4)[2, 0].get_ylabel()) == phantom
        assert ("nothing here is a patient" in figure.get_supxlabel()) == phantom


@pytest.mark.parametrize(("classes", "columns"), [(1, 10), (2, 10), (3, 12)])
def test_class_conditioned_figure_gives_columns_to_each_class(classes, columns):
    names = [f"class {number}" for number in range(classes)]
    generated = Generated(images(0, 20 * classes, 3), tuple(np.repeat(names, 20)))
    training = images(1, 40, 3)
    figure = neighbour_figure(generated, audit(generated.image, training), training, ("red", "green", "blue"))
    lines = panels(figure, 2)
    titles = [axes.get_title().splitlines()[0] for axes in lines[0]]
    assert titles == [name for name in names for _ in range(columns // classes)]
    assert pixels_of(lines[0, 0]).shape == (16, 16, 3)
    assert f"in colour: {columns} of n = {20 * classes}" in figure.get_suptitle()


def test_class_conditioned_figure_shows_few_images_on_training_scale():
    generated = Generated(0.1 * images(0, 3, 1), ("lesion",) * 3)
    training = images(1, 40, 1)
    lines = panels(neighbour_figure(generated, audit(generated.image, training), training, ("grey",)), 2)
    assert lines.shape == (2, 3)
    assert pixels_of(lines[0, 0]).max() < 150 < 240 < pixels_of(lines[1, 0]).max()
