"""Breaks when a picture stands beside the label of another, or is changed where it need not be."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.report import cards
from tests.report import made_up


def decode(text):
    """Every picture of the page as an array."""
    found = re.findall(r'src="data:image/(\w+);base64,([^"]*)"', text)
    return [(kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(x))))) for kind, x in found]


def draw(pictures, order=None):
    num_classes = pictures.probabilities.shape[1]
    names = [f"c{k}" for k in range(num_classes)]
    order = range(num_classes) if order is None else order
    return cards.draw_cards(pictures, names, [7] * num_classes, list(order))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_exact_and_stand_in_pairs(channels):
    pictures = made_up.make_pictures(3, 2, 8, channels)
    text, note = draw(pictures, [2, 0, 1])
    rows = [4, 5, 0, 1, 2, 3]
    found = decode(text)
    assert note == "" and {kind for kind, _ in found} == {"png"} and len(found) == 12
    for place, row in enumerate(rows):
        for offset, expected in enumerate((pictures.initial[row], pictures.pixels[row])):
            np.testing.assert_array_equal(found[2 * place + offset][1], np.squeeze(expected))


def test_bars_are_the_largest_shares_and_the_own_class_is_marked():
    pictures = made_up.make_pictures(4, 1)
    shares = np.array(
        [[0.6, 0.3, 0.06, 0.04], [0.5, 0.2, 0.2, 0.1], [0, 0, 1, 0], [0.4, 0, 0, 0.6]]
    )
    pictures = cards.Pictures(pictures.pixels, pictures.labels, shares)
    text, _ = draw(pictures)
    bars = re.findall(r'<li( class="own")?><span class="name" title="(\w+)">.*?width:(\d+)%', text)
    shown = [(name, int(percent), bool(own)) for own, name, percent in bars]
    assert shown == [
        ("c0", 60, True), ("c1", 30, False), ("c2", 6, False),
        ("c0", 50, False), ("c1", 20, True), ("c2", 20, False),
        ("c2", 100, True),
        ("c3", 60, True), ("c0", 40, False),
    ]  # fmt: skip


def test_large_pictures_are_made_smaller_and_the_note_says_so():
    text, note = draw(made_up.make_pictures(2, 1, 224))
    found = decode(text)
    assert {kind for kind, _ in found} == {"jpeg"}
    assert {array.shape for _, array in found} == {(75, 75, 3)}
    assert "exact ones" in note


def test_of_too_many_classes_some_are_shown_from_first_to_last(monkeypatch):
    monkeypatch.setattr(cards, "BUDGET", 20_000)
    text, note = draw(made_up.make_pictures(50, 2, 8))
    shown = re.findall(r"<h3>c(\d+)", text)
    assert shown[0] == "0" and shown[-1] == "49" and 5 < len(shown) < 50
    assert note == f"Shown: the first 1 of 2 images per class, {len(shown)} of 50 classes."
    assert len(text) < 2 * cards.BUDGET


def test_class_without_images_keeps_its_card():
    pictures = made_up.make_pictures(3, 1)
    kept = cards.Pictures(pictures.pixels[:2], pictures.labels[:2], pictures.probabilities[:2])
    text, _ = draw(kept)
    assert re.findall(r"<h3>c(\d)", text) == ["0", "1", "2"] and len(decode(text)) == 2


def test_images_of_several_pictures_say_whose_label_is_shown():
    """Breaks when a mean of labels passes for the label of one picture."""
    pictures = made_up.make_pictures(2, 1)
    _, note = draw(dataclasses.replace(pictures, partition=2))
    assert "holds 2 x 2 pictures" in note and "label shown is the mean of theirs" in note
    assert "mean" not in draw(pictures)[1]
