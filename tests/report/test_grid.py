"""Breaks when an image lands in the wrong cell, is smoothed, or the picture grows too large."""

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.report import grid


def find_colors(image: Image.Image) -> dict[tuple[int, int, int], tuple[int, int, int, int]]:
    """Color -> (left, top, right, bottom) of the box around all pixels of that color."""
    array = np.asarray(image)
    boxes = {}
    for color in np.unique(array.reshape(-1, 3), axis=0):
        rows, cols = np.nonzero((array == color).all(axis=2))
        box = (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)
        boxes[tuple(color.tolist())] = tuple(map(int, box))
    return boxes


def test_rows_are_classes_and_columns_keep_the_order():
    labels = np.array([1, 0, 1, 0], np.int32)
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    for row, color in enumerate([(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]):
        pixels[row] = color
    boxes = find_colors(grid.draw_grid(pixels, labels, ["a", "b"]))
    first_b, first_a = boxes[250, 0, 0], boxes[0, 250, 0]
    second_b, second_a = boxes[0, 0, 250], boxes[250, 250, 0]
    assert first_a[1] == second_a[1] < first_b[1] == second_b[1]
    assert first_a[0] == first_b[0] < second_a[0] == second_b[0]
    for box in (first_a, first_b, second_a, second_b):
        assert (box[2] - box[0], box[3] - box[1]) == (64, 64)  # 8 pixels, enlarged 8 times


def test_enlarging_keeps_every_pixel():
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1) * 3 + 100
    array = np.asarray(grid.draw_grid(pixels, np.zeros(1, np.int32), [""]))
    left, top, _, _ = find_colors(Image.fromarray(array))[(100, 100, 100)]
    cells = array[top + 8 : top + 64 : 16, left + 8 : left + 64 : 16]
    np.testing.assert_array_equal(cells, np.broadcast_to(pixels[0], (4, 4, 3)))


@pytest.mark.parametrize(
    ("num_classes", "side", "ipc"), [(10, 32, 50), (100, 32, 10), (200, 64, 2), (400, 128, 1)]
)
def test_picture_stays_small(num_classes, side, ipc):
    labels = np.repeat(np.arange(num_classes, dtype=np.int32), ipc)
    pixels = np.zeros((len(labels), side, side, 3), np.uint8)
    image = grid.draw_grid(
        pixels, labels, [f"a long name of class {k}" for k in range(num_classes)]
    )
    assert max(image.size) <= grid.MAX_SIDE


def test_many_classes_stand_side_by_side_and_none_is_cut_off():
    labels = np.repeat(np.arange(20), 3)
    pixels = np.zeros((60, 8, 8, 3), np.uint8)
    pixels[:, :, :, 0], pixels[:, :, :, 1] = 250, labels[:, None, None]
    image = grid.draw_grid(pixels, labels, [f"class {k}" for k in range(20)], max_side=800)
    boxes = find_colors(image)
    rows = [boxes[250, k, 0] for k in range(20)]
    assert {(b[2] - b[0], b[3] - b[1]) for b in rows} == {(3 * 64 + 2 * 2, 64)}  # gaps of 2
    assert len({(b[0], b[1]) for b in rows}) == 20
    assert len({b[0] for b in rows}) == 2  # panels


def test_note_says_what_is_left_out():
    assert grid._note(10, 10, 20, 20) == ""
    assert grid._note(10, 10, 20, 50) == "first 20 of 50 images per class"
    assert grid._note(8, 10, 1, 1) == "first 8 of 10 classes"
    labels, pixels = np.zeros(30, np.int32), np.zeros((30, 8, 8, 1), np.uint8)
    whole = grid.draw_grid(pixels, labels, ["a"], max_images_per_class=30)
    cut = grid.draw_grid(pixels, labels, ["a"], max_images_per_class=5)
    assert cut.width < whole.width and cut.height > whole.height  # one more line: the note


def test_class_without_images_keeps_its_row():
    pixels = np.full((1, 8, 8, 3), (250, 0, 0), np.uint8)
    image = grid.draw_grid(pixels, np.array([2]), ["a", "b", "c"])
    assert find_colors(image)[250, 0, 0][1] > 2 * 64


def test_name_of_several_lines_is_written_in_one():
    """Breaks when the class of a folder with a line break in its name ends the run."""
    pixels = np.zeros((1, 8, 8, 1), np.uint8)
    one, two = (grid.draw_grid(pixels, np.zeros(1, int), [name]) for name in ("a b", "a\nb"))
    np.testing.assert_array_equal(np.asarray(one), np.asarray(two))


def test_wrong_pixels_are_refused():
    with pytest.raises(ValueError, match="float32"):
        grid.draw_grid(np.zeros((1, 8, 8, 3), np.float32), np.zeros(1, int), ["a"])
    with pytest.raises(ValueError, match="8, 8, 4"):
        grid.draw_grid(np.zeros((1, 8, 8, 4), np.uint8), np.zeros(1, int), ["a"])
