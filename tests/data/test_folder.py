"""The user's own pictures, from a directory and from tar files, and everything wrong with them."""

import io
import os
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import disk_images, pictures, request, sources
from ltdd_jax.types import Interrupted, UserError

_GREY, _RED, _BLUE = (90, 90, 90), (200, 0, 0), (0, 0, 200)


def _write(path: pathlib.Path, color=_GREY, *, size=(6, 6), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


@pytest.fixture
def top(tmp_path):
    """Two classes; file order on disk and in archives differs from the order by name."""
    top = tmp_path / "pets"
    _write(top / "test" / "dog" / "a.png", _BLUE)
    _write(top / "test" / "cat" / "a.png", _RED)
    for number, name in enumerate(("c.png", "a.bmp", "b.webp")):
        _write(top / "train" / "dog" / name, (10 * number, 20, 30))
    _write(top / "train" / "cat" / "x.PNG", _RED)
    return top


def _pack(top: pathlib.Path, archive: pathlib.Path, mode: str, prefix: str) -> str:
    with tarfile.open(archive, mode) as tar:
        for file in sorted(top.rglob("*"), reverse=True):
            tar.add(file, f"{prefix}{file.relative_to(top)}", recursive=False)
    return str(archive)


@pytest.fixture(params=["directory", "one level down", "tar", "tar one level down", "tar.gz"])
def collection(request, top, tmp_path):
    """The same pictures in every allowed form."""
    if request.param == "directory":
        return str(top)
    if request.param == "one level down":
        return str(tmp_path)
    if request.param == "tar":
        return _pack(top, tmp_path / "pets.tar", "w", "./")
    if request.param == "tar one level down":
        return _pack(top, tmp_path / "pets.tar", "w", "pets/")
    return _pack(top, tmp_path / "pets.tar.gz", "w:gz", "pets/")


def test_every_form_gives_the_same_images(collection, monkeypatch):
    """Reading in archive order must not change the order of the result."""
    monkeypatch.setattr(pictures, "_BLOCK", 2)
    train = sources.load_source("folder", "train", path=collection)
    test = sources.load_source("folder", "test", path=collection)
    assert train.class_names == test.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 1, 1, 1]
    assert (train.images.dtype, train.images.shape) == (np.uint8, (4, 6, 6, 3))
    assert train.labels.dtype == np.int32
    assert train.images[0, 0, 0].tolist() == list(_RED)
    # By name: a.bmp (10), b.webp (20, lossy), c.png (0).
    np.testing.assert_allclose(train.images[1:, 3, 3, 0], [10, 20, 0], atol=4)
    assert test.labels.tolist() == [0, 1]
    assert test.images[1, 0, 0].tolist() == list(_BLUE)


def test_resizing_is_to_the_exact_square(top):
    _write(top / "train" / "cat" / "y.png", _BLUE, size=(30, 10))
    train = sources.load_source("folder", "train", path=str(top), image_size=8)
    assert train.images.shape == (5, 8, 8, 3)
    assert np.unique(train.images[1].reshape(-1, 3), axis=0).tolist() == [list(_BLUE)]
    checks = np.zeros((16, 16, 3), np.uint8)
    checks[::2] = 255
    Image.fromarray(checks).save(top / "train" / "cat" / "z.png")
    shrunk = sources.load_source("folder", "train", path=str(top), image_size=4).images[2]
    np.testing.assert_allclose(shrunk, 127, atol=40)  # averaged, not every fourth pixel


def test_all_modes_become_rgb(top):
    """Grey, palette with transparency and alpha: three channels, and no warning."""
    cats = top / "train" / "cat"
    _write(cats / "grey.png", mode="L")
    _write(cats / "alpha.png", mode="RGBA")
    _write(cats / "ink.jpg", mode="CMYK")
    palette = Image.new("P", (6, 6), 1)
    palette.putpalette([0, 0, 0, *_GREY])
    palette.save(cats / "palette.png", transparency=b"\x00\x80")
    train = sources.load_source("folder", "train", path=str(top))
    assert train.images.shape == (8, 6, 6, 3)
    np.testing.assert_allclose(train.images[:4, 3, 3], [_GREY] * 4, atol=6)


def test_files_that_are_no_pictures_are_left_out(top, caplog):
    (top / "train" / "cat" / "notes.txt").write_text("x")
    (top / "train" / "cat" / ".DS_Store").write_text("x")
    (top / "train" / "cat" / "._x.png").write_text("x")
    (top / "train" / "README.md").write_text("x")
    (top / "train" / ".cache").mkdir()
    (top / "__MACOSX").mkdir()
    _write(top / "train" / "cat" / "deeper" / "a.png", _BLUE)
    train = sources.load_source("folder", "train", path=str(top))
    assert train.class_counts().tolist() == [2, 3]
    assert train.images[0, 0, 0].tolist() == list(_BLUE)  # "deeper/a.png" < "x.PNG"
    assert "ignored 1 files such as train/cat/notes.txt" in caplog.text


def test_pictures_beside_the_splits_are_told(top, caplog):
    """Breaks when a val/ beside train/ is left out without a word."""
    _write(top / "val" / "cat" / "a.png", _RED)
    _write(top / "train" / "stray.png", _RED)
    assert sources.load_source("folder", "train", path=str(top)).class_counts().tolist() == [1, 3]
    assert "ignored 2 pictures that are in no class folder of train/ or test/" in caplog.text
    assert "such as train/stray.png" in caplog.text


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("TRAIN", "val")])
def test_splits_of_other_names_are_no_classes(tmp_path, names, inside):
    """Breaks when networks learn to tell the training pictures from the test pictures."""
    for name in names:
        for kind, color in (("cat", _RED), ("dog", _BLUE)):
            for picture in ("a.png", "b.png"):
                _write(tmp_path / "pets" / name / kind / picture, color)
    path = tmp_path if inside else tmp_path / "pets"
    first, second = sorted(names)
    with pytest.raises(UserError, match=f"the folders {first}/, {second}/, .* rename them to"):
        sources.load_source("folder", "train", path=str(path))


def load_both(top: pathlib.Path, **options) -> dict[str, sources.ImageSet]:
    return sources.load_splits("folder", path=str(top), **options)


def test_all_damaged_pictures_are_named_at_once(top):
    """Breaks when one is named per run, train and test apart, or with more than names."""
    noise = top / "noise.png"
    Image.effect_noise((6, 6), 50).save(noise)
    for name, content in (
        ("train/dog/half.png", noise.read_bytes()[:60]),
        ("train/cat/empty.png", b""),
        ("train/cat/text.png", b"no picture"),
        ("test/cat/text.png", b"no picture"),
    ):
        (top / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_both(top)
    assert str(error.value) == (
        f"{top}: 4 pictures cannot be decoded: test/cat/text.png, train/cat/empty.png, "
        "train/cat/text.png, train/dog/half.png; replace or remove them."
    )


def test_many_damaged_pictures_are_counted(top):
    for number in range(12):
        (top / "train" / "cat" / f"{number:02}.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"12 pictures .* train/cat/09.png and 2 more; replace"):
        load_both(top)


def test_picture_turned_by_its_camera_stands_upright(top):
    """Every EXIF orientation; damaged EXIF data count as none, as in viewers."""
    upright = np.zeros((6, 6, 3), np.uint8)
    upright[0, :4] = 255, 0, 0
    upright[1:3, 0] = 0, 0, 255
    stored = {  # what the camera stores so that the turn gives `upright`
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    for orientation, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = top / "train" / "cat" / f"{orientation}.png"
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, exif=exif)
    Image.fromarray(upright).save(top / "train" / "cat" / "9.png", exif=b"Exif\0\0II*\0\xff\xff")
    found = load_both(top)["train"].images[:9]
    np.testing.assert_array_equal(found, np.stack([upright] * 9))


def test_huge_picture_is_refused(top, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    _write(top / "train" / "cat" / "y.png", size=(11, 11))
    with pytest.raises(UserError, match=r"1 picture cannot be decoded: train/cat/y.png; replace"):
        sources.load_source("folder", "train", path=str(top), image_size=6)


def test_deep_pictures_are_refused(top):
    """Pillow would cut 16 bits off at 255: a nearly white picture."""
    Image.fromarray(np.full((6, 6), 30000, np.uint16)).save(top / "train" / "cat" / "y.png")
    with pytest.raises(UserError, match=r"more than 8 bits per channel.*train/cat/y.png; convert"):
        sources.load_source("folder", "train", path=str(top))


def test_unequal_sizes_name_those_that_differ_from_most(top):
    _write(top / "train" / "cat" / "x.PNG", size=(7, 6))  # the first by name
    _write(top / "test" / "dog" / "a.png", size=(9, 9))
    with pytest.raises(UserError) as error:
        load_both(top)
    assert str(error.value) == (
        f"{top}: most pictures are 6x6 pixels, but not test/dog/a.png (9x9), train/cat/x.PNG (7x6);"
        " set --config.data.image_size=SIDE to resize all."
    )
    assert load_both(top, image_size=5)["test"].images.shape == (2, 5, 5, 3)


def test_pictures_of_one_size_need_not_be_square(top):
    for file in top.rglob("*.*"):
        _write(file.with_suffix(".png"), size=(9, 6), mode="L")
        if file.suffix != ".png":
            file.unlink()
    assert load_both(top)["train"].images.shape == (4, 6, 9, 3)


def _stream(path, tmp_path, **options):
    return load_both(path, memory="stream", cache=str(tmp_path / "cache"), **options)


def test_streamed_pictures_are_the_same(collection, tmp_path, monkeypatch):
    """Breaks when the order of an archive becomes that of the labels."""
    monkeypatch.setattr(disk_images, "_PIECE_BYTES", 200)
    in_memory, on_disk = load_both(collection), _stream(collection, tmp_path)
    assert isinstance(on_disk["train"].images, disk_images.DiskImages)
    for split, found in on_disk.items():
        np.testing.assert_array_equal(found.images[:], in_memory[split].images)
    assert sources.fingerprint(*on_disk.values()) == sources.fingerprint(*in_memory.values())
    constants = [sources.measure_constants(s["train"].images) for s in (on_disk, in_memory)]
    assert constants[0] == constants[1]


def test_streamed_pictures_are_grey_oblong_or_resized(top, tmp_path):
    for number, file in enumerate(sorted(top.rglob("*.*"))):
        _write(file.with_suffix(".png"), size=(9, 6), mode="L" if number % 2 else "RGB")
        if file.suffix != ".png":
            file.unlink()
    found = _stream(top, tmp_path)["train"].images
    assert found.shape == (4, 6, 9, 3)
    np.testing.assert_array_equal(found[:], load_both(top)["train"].images)
    _write(top / "train" / "cat" / "y.png", _BLUE, size=(7, 20))
    found = _stream(top, tmp_path, image_size=5)["train"].images
    np.testing.assert_array_equal(found[:], load_both(top, image_size=5)["train"].images)


def test_an_archive_in_any_order_is_streamed(tmp_path):
    """Breaks when places in the archive and places in the set are mixed up: here a cycle."""
    archive = tmp_path / "pets.tar"
    names = ("dog/b", "cat/a", "dog/a", "cat/b")
    with tarfile.open(archive, "w") as tar:
        for split in ("test", "train"):
            for number, name in enumerate(names):
                path = tmp_path / "one.png"
                _write(path, (40 * number, 0, 0))
                tar.add(path, f"{split}/{name}.png")
    for memory in ("load", "stream"):
        train = load_both(archive, memory=memory, cache=str(tmp_path / "cache"))["train"]
        assert train.images[:][:, 0, 0, 0].tolist() == [40, 120, 80, 0]


def test_a_changed_picture_is_decoded_again(top, tmp_path):
    """Of equal size; breaks when the pixels of yesterday's pictures are trained on."""
    path = top / "train" / "dog" / "a.bmp"
    _write(path, _RED)
    assert _stream(top, tmp_path)["train"].images[1][0, 0].tolist() == list(_RED)
    before = path.stat()
    _write(path, _BLUE)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_mtime_ns + 1, before.st_mtime_ns + 1))
    assert _stream(top, tmp_path)["train"].images[1][0, 0].tolist() == list(_BLUE)


def test_streaming_refuses_the_same_pictures(top, tmp_path):
    _write(top / "train" / "cat" / "y.png", size=(7, 6))
    with pytest.raises(UserError, match=r"most pictures are 6x6 .*cat/y.png \(7x6\); set --config"):
        _stream(top, tmp_path)
    (top / "train" / "cat" / "y.png").write_bytes(b"no picture")
    for image_size in (0, 6):
        with pytest.raises(UserError, match=r"1 picture cannot be decoded: train/cat/y.png"):
            _stream(top, tmp_path, image_size=image_size)
    with pytest.raises(UserError, match=r"memory=stream is not possible for the source 'digits'"):
        sources.load_source("digits", "train", memory="stream")


def test_one_class_is_refused(top):
    for split in ("train", "test"):
        _remove(top / split / "dog")
    with pytest.raises(UserError, match="single class 'cat'; a classifier needs at least two"):
        load_both(top)


def test_too_little_memory_is_seen_before_it_is_taken(top, monkeypatch):
    """Breaks when the array is allocated first, or when the remedy is not named."""
    monkeypatch.setattr(pictures.np, "empty", None)
    with pytest.raises(UserError, match=r"6 pictures as 900000x900000 .*config.data.image_size"):
        pictures._allocate(6, (900_000, 900_000, 3), request.Request(path=str(top)))


def test_progress_is_said_and_reading_can_be_stopped(top, monkeypatch):
    """Breaks when a long reading is silent or deaf."""
    monkeypatch.setattr(request.throttle, "__defaults__", (0.0,))
    said = []
    load_both(top, say=said.append)
    assert f"reading {top}: 6 of 6 pictures" in said

    def stop():
        raise Interrupted(2)

    for path in (str(top), _pack(top, top.parent / "pets.tar", "w", "")):
        with pytest.raises(Interrupted):
            sources.load_splits("folder", path=path, check=stop)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: _remove(t / "test"), r"class 'cat' has one picture, and there is no test/"),
        (lambda t: _remove(t / "train"), r"pets has no folder train/"),
        (lambda t: (_remove(t / "train"), _remove(t / "test")), "neither train/ nor test/"),
        (lambda t: _remove(t / "test" / "cat"), "class 'cat' is in train/ but not in test/"),
        (lambda t: _write(t / "test/emu/a.png"), "class 'emu' is in test/ but not in train/"),
        (
            lambda t: (t / "train" / "cat" / "x.PNG").unlink(),
            "class 'cat' of train/ has no picture",
        ),
        (lambda t: _remove(t / "test" / "dog", keep=True), "class 'dog' of test/ has no picture"),
        (
            lambda t: (_remove(t / "test", keep=True), (t / "test" / "a.png").write_text("x")),
            "class 'cat' has one picture, and there is no test/",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_missing_parts_are_named(packed, change, message, top, tmp_path):
    change(top)
    path = _pack(top, tmp_path / "pets.tar", "w", "pets/") if packed else str(top)
    message = message.replace("pets has", r"pets\S* has")
    with pytest.raises(UserError, match=message):
        sources.load_source("folder", "train", path=path)


def _remove(path: pathlib.Path, *, keep: bool = False) -> None:
    for file in sorted(path.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    if not keep:
        path.rmdir()


def test_two_collections_in_one_place(top):
    _write(top.parent / "more" / "train" / "cat" / "a.png")
    with pytest.raises(UserError, match="in both more/ and pets/"):
        sources.load_source("folder", "train", path=str(top.parent))


def test_path_that_is_no_collection(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        sources.load_source("folder", "train", path=str(tmp_path / "nowhere"))
    (tmp_path / "file.tar").write_bytes(b"not a tar file" * 100)
    with pytest.raises(UserError, match=r"file.tar is no readable directory, tar or zip file"):
        sources.load_source("folder", "train", path=str(tmp_path / "file.tar"))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_damaged_archive(mode, how, top, tmp_path):
    path = pathlib.Path(_pack(top, tmp_path / "pets.tar", mode, "pets/"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if how == "truncated":
        del content[middle:]
    else:
        content[middle : middle + 600] = bytes(255 - b for b in content[middle : middle + 600])
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pets.tar"):
        sources.load_source("folder", "train", path=str(path))


def test_damaged_archive_is_never_read_as_a_smaller_one(top, tmp_path):
    """tarfile takes a damaged header for the end of the archive: the last picture would vanish."""
    path = pathlib.Path(_pack(top, tmp_path / "pets.tar", "w", "pets/"))
    with tarfile.open(path, "a") as tar:
        tar.add(top / "train/dog/c.png", "pets/train/dog/z.png")
    with tarfile.open(path) as tar:
        start = tar.getmember("pets/train/dog/z.png").offset
    assert len(sources.load_source("folder", "train", path=str(path)).images) == 5
    content = bytearray(path.read_bytes())
    content[start + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pets.tar is no readable .*damaged after"):
        sources.load_source("folder", "train", path=str(path))


def test_links_in_archives(top, tmp_path):
    """A link to a picture of the archive counts once with it; a dangling one is an error.

    A file that was added again replaces the earlier one, as `tar` does when it unpacks.
    """
    path = tmp_path / "pets.tar"
    _pack(top, path, "w", "pets/")
    with tarfile.open(path, "a") as tar:
        tar.add(top / "train/cat/x.PNG", "pets/train/cat/x.PNG")
    for target, works in (("pets/train/cat/x.PNG", True), ("pets/nothing.png", False)):
        with tarfile.open(path, "a") as tar:
            link = tarfile.TarInfo(f"pets/train/cat/{works}.png")
            link.type, link.linkname = tarfile.LNKTYPE, target
            tar.addfile(link, io.BytesIO())
        if works:
            train = sources.load_source("folder", "train", path=str(path))
            assert train.class_counts().tolist() == [1, 3]
        else:
            with pytest.raises(UserError, match=r"cat/False.png \(a link to nothing"):
                sources.load_source("folder", "train", path=str(path))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_without_test_a_fifth_of_each_class_is_held_out(tmp_path, flat, packed):
    """Breaks when a picture is in both splits or in none, or class folders alone are refused."""
    top = tmp_path / "flowers"
    for name, count in (("iris", 11), ("rose", 2)):
        for number in range(count):
            folder = top / name if flat else top / "train" / name
            _write(folder / f"{number:02d}.png", (number, 10 if name == "iris" else 90, 0))
    path = _pack(top, tmp_path / "flowers.tar", "w", "flowers/") if packed else top
    said = []
    sets = sources.load_splits("folder", path=str(path), say=said.append)
    train, test = sets["train"], sets["test"]
    assert (train.class_counts().tolist(), test.class_counts().tolist()) == ([9, 1], [2, 1])
    colours = {tuple(x[0, 0]) for s in (train, test) for x in s.images}
    assert len(colours) == 13 and train.class_names == ("iris", "rose")
    assert any("3 of 13 pictures are held out" in text for text in said)
    again = sources.load_splits("folder", path=str(path))["test"]
    np.testing.assert_array_equal(again.images, test.images)
