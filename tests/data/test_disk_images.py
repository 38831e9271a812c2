"""Decoded pictures on disk: rows, resumption, damage, limits."""

import json
import shutil

import numpy as np
import pytest

from ltdd_jax.data import disk_images, request
from ltdd_jax.types import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (11, 4, 3, 2), np.uint8)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Four pieces, the last one short."""
    monkeypatch.setattr(disk_images, "_PIECE_BYTES", 3 * 24)


class Reader:
    """Notes what is decoded; stops before the piece that starts at `stop`."""

    def __init__(self, stop=None):
        self.read, self.stop = [], stop

    def __call__(self, start, end):
        if start == self.stop:
            raise KeyboardInterrupt
        self.read.append((start, end))
        return PIXELS[start:end]


def write(tmp_path, reader, made_of="a", **options):
    asked = request.Request(cache=str(tmp_path), **options)
    return disk_images.write(asked, {"made_of": made_of}, 11, (4, 3, 2), reader)


@pytest.mark.parametrize(
    "index",
    [
        *(3, -1, slice(None), slice(2, 9, 3), slice(5, 5), slice(-3, None)),
        *(np.array([7, 0, 0, 10]), np.array([[1, 2], [3, 0]]), np.arange(11) % 3 == 0),
        *(np.array([], np.int64), np.int32([4, 5, 6])),
    ],
)
def test_rows_are_those_of_the_array(tmp_path, index):
    """Breaks when runs of neighbours are cut wrongly, or a shape is not that of NumPy."""
    images = write(tmp_path, Reader())
    np.testing.assert_array_equal(images[index], PIXELS[index])
    assert (images.shape, images.size, len(images)) == (PIXELS.shape, PIXELS.size, 11)
    order = np.array([9, 10, 2, 2, 0, 5, 6, 1, 3, 4, 8])
    taken = images.take(order)
    np.testing.assert_array_equal(taken[index], PIXELS[order][index])
    np.testing.assert_array_equal(taken.take(slice(1, 7))[:], PIXELS[order][1:7])
    blocks = disk_images.iterate_blocks(taken, values=50)
    np.testing.assert_array_equal(np.concatenate(list(blocks)), PIXELS[order])


def test_an_interrupted_writing_goes_on(tmp_path):
    """Breaks when finished pieces are decoded again, or unfinished ones count."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, Reader(stop=6))
    second = Reader()
    np.testing.assert_array_equal(write(tmp_path, second)[:], PIXELS)
    assert second.read == [(6, 9), (9, 11)]
    third = Reader()
    np.testing.assert_array_equal(write(tmp_path, third)[:], PIXELS)
    assert third.read == []
    other = Reader()
    write(tmp_path, other, made_of="b")
    assert len(other.read) == 4


@pytest.mark.parametrize("damage", ["flip", "cut", "no record", "no json", "other record"])
def test_damaged_pieces_are_made_again(tmp_path, damage):
    """Breaks when a changed byte becomes training data."""
    write(tmp_path, Reader())
    (directory,) = tmp_path.iterdir()
    pixels, record = directory / "pixels", directory / "record.json"
    if damage == "flip":
        content = bytearray(pixels.read_bytes())
        content[80] ^= 1  # in the second piece
        pixels.write_bytes(content)
    elif damage == "cut":
        pixels.write_bytes(pixels.read_bytes()[:-1])
    elif damage == "no record":
        record.unlink()
    else:
        record.write_text("{" if damage == "no json" else json.dumps({"made_of": 1, "sums": {}}))
    reader, warnings = Reader(), []
    np.testing.assert_array_equal(write(tmp_path, reader, warn=warnings.append)[:], PIXELS)
    again = {"flip": [(3, 6)], "cut": [(9, 11)]}
    assert reader.read == again.get(damage, [(0, 3), (3, 6), (6, 9), (9, 11)])
    assert len(warnings) == (damage in again)


def test_a_set_that_vanishes_or_shrinks_is_one_sentence(tmp_path):
    images = write(tmp_path, Reader())
    (directory,) = tmp_path.iterdir()
    (directory / "pixels").write_bytes(b"")
    with pytest.raises(UserError, match=r"pixels is cut off; delete its directory"):
        images[2:4]


def test_limits_are_said_before_anything_is_decoded(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=200))
    reader = Reader()
    with pytest.raises(UserError, match=r"need 0.0 GB in .* give another directory as --config"):
        write(tmp_path, reader)
    assert reader.read == []
    (tmp_path / "file").write_bytes(b"")
    asked = request.Request(cache=str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"cannot be written .*--config.data.memory=load"):
        disk_images.write(asked, {}, 11, (4, 3, 2), reader)
    with pytest.raises(UserError, match=r"data.cache=gs://b is remote"):
        disk_images.find_cache("gs://b")


def test_the_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert disk_images.find_cache("") == tmp_path / "ltdd_jax" / "pictures"


def test_two_writers_take_turns(tmp_path):
    """Breaks when two runs that start together write into one file."""
    asked = request.Request(cache=str(tmp_path), check=lambda: stops.append(1) or stop_late())
    stops: list[int] = []

    def stop_late():
        if len(stops) > 1:
            raise KeyboardInterrupt

    said = []
    with (
        disk_images._only_writer(tmp_path, asked),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(KeyboardInterrupt),
    ):
        patch.setattr(disk_images, "_POLL_SECONDS", 0.0)
        waiting = request.Request(say=said.append, check=asked.check)
        with disk_images._only_writer(tmp_path, waiting):
            raise AssertionError("both write")
    assert len(said) == 1
    assert said[0].startswith("waiting for the process")


def test_large_sets_stream_by_themselves():
    """Breaks when the free memory of a machine decides what a run is."""
    asked = request.Request()
    assert disk_images.is_streamed(asked, 2**31 + 1)
    assert not disk_images.is_streamed(asked, 2**31)
    assert disk_images.is_streamed(request.Request(memory="stream"), 1)
    assert not disk_images.is_streamed(request.Request(memory="load"), 2**40)


def test_equal_sets_are_equal(tmp_path):
    """So that a second one needs no second compilation, and another one does."""
    images, again = write(tmp_path, Reader()), write(tmp_path, Reader())
    assert images == again
    assert hash(images) == hash(again)
    assert images != images.take(slice(0, 10))
    assert images.take(np.array([1, 0])) != images.take(np.array([0, 1]))
    with pytest.raises(UserError, match=r"wanted at once.*--config.data.memory=load"):
        np.asarray(images)
