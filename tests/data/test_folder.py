"""The user's own pictures, from a directory and from tar files, and everything wrong with them."""

import io
import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import folder, sources
from ltdd_jax.types import UserError

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
    monkeypatch.setattr(folder, "_BLOCK", 2)
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


def test_damaged_picture_is_named(top):
    file = top / "train" / "dog" / "b.webp"
    Image.effect_noise((6, 6), 50).save(file.with_suffix(".png"))
    file.unlink()
    noise = file.with_suffix(".png")
    for content in (noise.read_bytes()[:60], b"", b"no picture"):
        noise.write_bytes(content)
        with pytest.raises(UserError, match=r"train/dog/b.png cannot be decoded .*; replace"):
            sources.load_source("folder", "train", path=str(top))


def test_huge_picture_is_refused(top, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    _write(top / "train" / "cat" / "y.png", size=(11, 11))
    with pytest.raises(UserError, match=r"train/cat/y.png cannot be decoded"):
        sources.load_source("folder", "train", path=str(top), image_size=6)


def test_deep_pictures_are_refused(top):
    """Pillow would cut 16 bits off at 255: a nearly white picture."""
    Image.fromarray(np.full((6, 6), 30000, np.uint16)).save(top / "train" / "cat" / "y.png")
    with pytest.raises(UserError, match=r"y.png has more than 8 bits per channel"):
        sources.load_source("folder", "train", path=str(top))


def test_unequal_sizes_name_the_first_that_differs(top):
    _write(top / "train" / "dog" / "a2.png", size=(7, 6))
    with pytest.raises(UserError, match=r"train/dog/a2.png is 7x6 .*config.data.image_size=SIDE"):
        sources.load_source("folder", "train", path=str(top))
    for file in (top / "test").rglob("*.png"):
        _write(file, size=(9, 9))
    with pytest.raises(UserError, match=r"test/cat/a.png is 9x9 pixels, but train/cat/x.PNG is"):
        sources.load_source("folder", "test", path=str(top))
    _write(top / "train" / "cat" / "x.PNG", size=(6, 4))
    with pytest.raises(UserError, match=r"train/cat/x.PNG is 6x4 .* square .*image_size=SIDE"):
        sources.load_source("folder", "train", path=str(top))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: _remove(t / "test"), r"pets has no folder test/"),
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
            "test/ has no class folder",
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
    with pytest.raises(UserError, match=r"file.tar is no readable directory or tar file"):
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
    """A link to a picture of the archive is that picture; a dangling one is an error.

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
            assert train.class_counts().tolist() == [2, 3]
        else:
            with pytest.raises(UserError, match=r"cat/False.png cannot be read"):
                sources.load_source("folder", "train", path=str(path))
