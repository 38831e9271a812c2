"""Links, pipes, limits and hostile archives: each ends at once, in pictures or in one sentence."""

import gzip
import io
import os
import pathlib
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.data import collection, request, sources
from ltdd_jax.types import UserError


@pytest.fixture
def top(tmp_path):
    """Two classes with two pictures each, in train and in test."""
    top = tmp_path / "pets"
    for number, name in enumerate(
        f"{split}/{label}/{k}.png"
        for split in ("train", "test")
        for label in ("cat", "dog")
        for k in "ab"
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (20 * number, 0, 0)).save(top / name)
    return top


def load(path, **options):
    """Numbers of pictures of every class in train and test, and the warnings."""
    warnings = []
    sets = sources.load_splits("folder", path=str(path), warn=warnings.append, **options)
    return [sets[split].class_counts().tolist() for split in sets], warnings


def pack(top: pathlib.Path, mode: str = "w") -> pathlib.Path:
    path = top.parent / f"pets.{mode.replace(':', '.')}"
    with tarfile.open(path, mode) as tar:
        tar.add(top, "pets")
    return path


def strip_end(content: bytes) -> bytes:
    """A tar file without the empty blocks at its end."""
    content = content.rstrip(b"\0")
    return content + bytes(-len(content) % 512)


def append_member(path: pathlib.Path, name: str, kind: bytes, link: str = "") -> None:
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo(f"pets/{name}")
        member.type, member.linkname = kind, link
        tar.addfile(member, io.BytesIO())


def test_links_to_folders_are_followed_only_if_asked(top):
    """Breaks when a link adds pictures unasked, or is dropped without a word."""
    pool = top.parent / "pool" / "more"
    pool.mkdir(parents=True)
    Image.new("RGB", (4, 4), (0, 99, 0)).save(pool / "c.png")
    (top / "train" / "cat" / "pool").symlink_to(pool)
    counts, warnings = load(top)
    assert counts == [[2, 2], [2, 2]]
    assert "train/cat/pool; --config.data.follow_links=true" in warnings[0]
    counts, warnings = load(top, follow_links=True)
    assert (counts, warnings) == ([[3, 2], [2, 2]], [])


def test_missing_class_that_is_a_link_says_so(top):
    (top / "train" / "dog").rename(top.parent / "dogs")
    (top / "train" / "dog").symlink_to(top.parent / "dogs")
    with pytest.raises(UserError, match=r"'dog' is in test/ .*follow.*train/dog; --config.data.fo"):
        load(top)
    assert load(top, follow_links=True)[0] == [[2, 2], [2, 2]]


@pytest.mark.parametrize("target", [".", "..", "../..", "/"])
def test_links_in_a_circle_end(target, top):
    """Breaks when such a link is walked for ever or multiplies the pictures."""
    if target != "/":  # which is no circle, but may hold any number of files
        (top / "train" / "cat" / "again").symlink_to(target)
        counts, warnings = load(top, follow_links=True)
        assert counts == [[2, 2], [2, 2]]
        assert "lead back" in warnings[0] and "train/cat/again" in warnings[0]
    (top / "train" / "dog" / "again").symlink_to(target)
    assert load(top)[0] == [[2, 2], [2, 2]]


def test_doubling_links_end(top):
    """Thirty levels with two links each would be a billion folders."""
    for level in range(30):
        folder = top.parent / "levels" / str(level)
        folder.mkdir(parents=True)
        for name in "xy":
            (folder / name).symlink_to(f"../{level + 1}" if level < 29 else top / "train" / "cat")
    (top / "train" / "dog" / "x").symlink_to(top.parent / "levels" / "0")
    with pytest.raises(UserError, match=r"class 'dog' are links"):
        (top / "train" / "dog" / "a.png").unlink()
        (top / "train" / "dog" / "b.png").unlink()
        load(top, follow_links=True)


@pytest.mark.parametrize("packed", [False, True])
def test_one_picture_under_two_names_counts_once(packed, top):
    """Breaks when hard links or links make more pictures than there are."""
    os.link(top / "train" / "cat" / "a.png", top / "train" / "cat" / "z.png")
    (top / "train" / "cat" / "y.png").symlink_to("a.png")
    os.link(top / "train" / "cat" / "b.png", top / "test" / "cat" / "b2.png")  # another split
    counts, warnings = load(pack(top) if packed else top)
    assert counts == [[2, 2], [3, 2]]
    assert "2 pictures are further names" in warnings[0]
    assert "train/cat/y.png" in warnings[0] and "train/cat/z.png" in warnings[0]


@pytest.mark.parametrize("packed", [False, True])
def test_names_of_one_picture_are_not_held_out_from_each_other(packed, top):
    """Breaks when a picture is trained on under one name and held out for the test under another.

    A class of one picture under two names has none to hold out.
    """
    classes = top / "train"
    for number in range(10):
        for label, color in (("cat", 140), ("dog", 180)):
            Image.new("RGB", (4, 4), (color, number, 0)).save(classes / label / f"{number}.png")
            os.link(classes / label / f"{number}.png", classes / label / f"again{number}.png")
        (classes / "dog" / f"link{number}.png").symlink_to(f"{number}.png")
    path = pack(classes) if packed else classes
    sets = sources.load_splits("folder", path=str(path))
    train, test = ({x.tobytes() for x in sets[split].images} for split in ("train", "test"))
    assert [sets[split].class_counts().tolist() for split in sets] == [[10, 10], [2, 2]]
    assert (len(train), len(test), len(train & test)) == (20, 4, 0)
    (classes / "emu").mkdir()
    Image.new("RGB", (4, 4)).save(classes / "emu" / "a.png")
    os.link(classes / "emu" / "a.png", classes / "emu" / "b.png")
    with pytest.raises(UserError, match="class 'emu' has one picture, and there is no test/"):
        load(classes)


@pytest.mark.parametrize("packed", [False, True])
def test_pipes_are_no_pictures(packed, top):
    """Breaks when a pipe named like a picture is opened: nobody will ever write to it."""
    os.mkfifo(top / "train" / "cat" / "pipe.png")
    os.mkfifo(top / "train" / "cat" / "pipe")
    with pytest.raises(UserError, match=r"cat/pipe.png \(no regular file\); remove"):
        load(pack(top) if packed else top)


def test_a_pipe_as_path(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    for source in ("folder", "npz"):
        with pytest.raises(UserError, match=r"pipe.tar is no (regular )?file"):
            sources.load_source(source, "train", path=str(tmp_path / "pipe.tar"))


def test_broken_links_are_all_named(top):
    (top / "train" / "cat" / "x.png").symlink_to("nowhere.png")
    (top / "train" / "cat" / "y.png").symlink_to("y.png")
    with pytest.raises(UserError, match=r"x.png \(a link to nothing\), train/cat/y.png \(a link"):
        load(top)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_the_top_itself_may_stand_in_an_archive(kind, top):
    """Breaks when the member "." of `tar cf pets.tar -C pets .` is taken for a nameless class."""
    path = top.parent / f"pets.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as tar:
            tar.add(top / "train", ".")
            assert tar.getnames()[0] == "."
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("./", "")
            for file in sorted((top / "train").rglob("*.png")):
                archive.write(file, file.relative_to(top / "train"))
    assert load(path)[0] == [[1, 1], [1, 1]]


def test_archive_links_in_a_circle(top):
    """Breaks when tarfile is left to follow them: a RecursionError."""
    path = pack(top)
    append_member(path, "train/cat/x.png", tarfile.SYMTYPE, "y.png")
    append_member(path, "train/cat/y.png", tarfile.SYMTYPE, "x.png")
    with pytest.raises(UserError, match=r"x.png \(a link that leads back to itself\), .*y.png"):
        load(path)


def test_archive_links_to_folders_are_named(top):
    path = pack(top)
    append_member(path, "train/cow", tarfile.SYMTYPE, "cat")
    counts, warnings = load(path)
    assert counts == [[2, 2], [2, 2]] and "train/cow" in warnings[0]


@pytest.mark.parametrize("name", ["x.bin", "x.png"])
def test_large_member_is_refused_by_its_header(name, top):
    """Breaks when a member is unpacked before its size is looked at: here it is not even there."""
    path = pack(top, "w:gz")
    member = tarfile.TarInfo(f"pets/train/cat/{name}")
    member.size = 4_000_000_000
    content = strip_end(gzip.decompress(path.read_bytes()))
    path.write_bytes(gzip.compress(content + member.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(UserError, match=rf"{name} has 4,000 MB, more than --config.data.max_file_"):
        load(path)


def test_limits_name_the_setting_that_raises_them(top):
    with pytest.raises(UserError, match=r"cat/a.png has 0 MB.*--config.data.max_file_mb=0 allows"):
        load(top, max_file_mb=0)
    with pytest.raises(UserError, match=r"more than the 0 GB that --config.data.max_total_gb"):
        load(top, max_total_gb=0)
    with pytest.raises(UserError, match=r"more than the 0 GB that --config.data.max_total_gb"):
        load(pack(top, "w:gz"), max_total_gb=0)


def test_extended_header_is_not_read_into_memory(top):
    """A few packed bytes can announce gigabytes of it, and less than none is read to the end."""
    path = pack(top)
    content = strip_end(path.read_bytes())
    for kind, size in ((tarfile.XHDTYPE, 5_000_000_000), (tarfile.GNUTYPE_LONGNAME, -512)):
        header = tarfile.TarInfo("x")
        header.type, header.size = kind, size
        path.write_bytes(content + header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
        with pytest.raises(UserError, match=rf"no readable .*speaks of {size} bytes"):
            load(path)


def test_negative_size_does_not_lead_back(top):
    """tarfile of some Python versions would read the same header for ever."""
    path = pack(top)
    content = strip_end(path.read_bytes())
    for pax in (False, True):
        header = tarfile.TarInfo("pets/train/cat/x.png")
        if pax:
            header.pax_headers = {"size": "-2560"}
            block = header.tobuf(tarfile.PAX_FORMAT)
        else:
            header.size = -512
            block = header.tobuf(tarfile.GNU_FORMAT)
        path.write_bytes(content + block + bytes(10240))
        start = time.monotonic()
        with pytest.raises(UserError, match="no readable"):
            load(path)
        assert time.monotonic() - start < 5


def test_arrays_in_a_zip_file_get_their_own_advice(top):
    path = top.parent / "pets.zip"
    with path.open("wb") as stream:
        np.savez(stream, x=1)
    with pytest.raises(UserError, match=r"a file of arrays, .*source=npz"):
        load(path)


def test_names_that_cannot_be_printed_are_quoted(top):
    """Breaks when a file name breaks the message into lines, or a class name reaches a report."""
    (top / "train" / "cat" / "a\nb.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"'train/cat/a\\nb.png'"):
        load(top)
    (top / "train" / "cat" / "a\nb.png").unlink()
    for split in ("train", "test"):
        os.rename(os.fsencode(top / split / "cat"), os.fsencode(top / split) + b"/c\xff")
    with pytest.raises(UserError, match=r"class folder 'c\\udcff' .*cannot be printed; rename"):
        load(top)


def test_deep_folders(top):
    """Breaks when folders are walked by recursion, which Python limits."""
    (top / "train" / "cat" / "/".join("d" * 300)).mkdir(parents=True)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(280)
    try:
        assert load(top)[0] == [[2, 2], [2, 2]]
    finally:
        sys.setrecursionlimit(limit)


def test_entries_of_a_directory(top):
    """Size and identity are those of the file system; folders have neither."""
    with collection.open_collection(request.Request(path=str(top))) as found:
        entries = {entry.name: entry for entry in found.entries}
    picture = entries["train/cat/a.png"]
    assert picture.size == (top / "train/cat/a.png").stat().st_size
    assert picture.read() == (top / "train/cat/a.png").read_bytes()
    assert not entries["train/cat"].is_file
