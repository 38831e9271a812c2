"""The layouts in which Tiny-ImageNet and ImageNet come, lists of pictures, and what is wrong."""

import pathlib
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ltdd_jax.data import sources, tfds_source
from ltdd_jax.types import UserError

# Value of the red channel of each picture, by class and name.
TRAIN = {"n02": {"n02_0": 10, "n02_1": 20}, "n01": {"n01_0": 30, "n01_10": 40, "n01_2": 50}}
VAL = {"val_0": ("n02", 60), "val_1": ("n01", 70), "val_2": ("n02", 80)}


def write(path: pathlib.Path, value: int, size=(8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 0, 0)).save(path, "PNG")  # exact; the end of the name is .JPEG


@pytest.fixture
def tiny(tmp_path):
    """A Tiny-ImageNet of two classes, as its archive is laid out."""
    top = tmp_path / "unpacked" / "tiny-imagenet-200"
    for name, files in TRAIN.items():
        for file, value in files.items():
            write(top / "train" / name / "images" / f"{file}.JPEG", value)
        (top / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t1\t1\n")
    for file, (_, value) in VAL.items():
        write(top / "val" / "images" / f"{file}.JPEG", value)
    lines = [f"{file}.JPEG\t{name}\t0\t0\t1\t1\n" for file, (name, _) in VAL.items()]
    (top / "val" / "val_annotations.txt").write_text("".join(lines))
    write(top / "test" / "images" / "test_0.JPEG", 99)
    (top / "wnids.txt").write_text("n02\nn01\n")
    return top


def pack(top: pathlib.Path, kind: str) -> str:
    path = top.parent.parent / f"tiny-imagenet-200.{kind}"
    files = sorted(top.rglob("*"), reverse=True)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(top.parent))
    else:
        with tarfile.open(path, "w") as archive:
            for file in files:
                archive.add(file, file.relative_to(top.parent), recursive=False)
    return str(path)


def reds(found) -> list[int]:
    return found.images[:][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", ["directory", "one level up", "zip", "tar"])
def test_the_original_layout_is_read(tiny, kind):
    """Breaks when labels follow wnids.txt, val/ keeps its own order, or test/ counts."""
    places = {"directory": str(tiny), "one level up": str(tiny.parent)}
    path = places.get(kind) or pack(tiny, kind)
    warnings = []
    sets = sources.load_splits("tiny_imagenet", path=path, warn=warnings.append)
    assert sets["train"].class_names == sets["test"].class_names == ("n01", "n02")
    assert sets["train"].labels.tolist() == [0, 0, 0, 1, 1]
    assert reds(sets["train"]) == [30, 40, 50, 10, 20]  # by name: n01_0, n01_10, n01_2
    assert sets["test"].labels.tolist() == [0, 1, 1]
    assert reds(sets["test"]) == [70, 60, 80]
    assert not warnings


def test_the_archive_is_found_in_the_data_dir(tiny):
    pack(tiny, "zip")
    found = sources.load_source("tiny_imagenet", "test", data_dir=str(tiny.parents[1]))
    assert reds(found) == [70, 60, 80]


def test_sorted_validation_folders_need_no_annotations(tiny):
    for file, (name, _) in VAL.items():
        old = tiny / "val" / "images" / f"{file}.JPEG"
        (tiny / "val" / name).mkdir(exist_ok=True)
        old.rename(tiny / "val" / name / old.name)
    (tiny / "val" / "val_annotations.txt").unlink()
    assert reds(sources.load_source("tiny_imagenet", "test", path=str(tiny))) == [70, 60, 80]


def test_what_is_wrong_with_the_layout_is_one_sentence(tiny):
    def expect(message):
        with pytest.raises(UserError, match=message):
            sources.check_source("tiny_imagenet", path=str(tiny))

    annotations = tiny / "val" / "val_annotations.txt"
    whole = annotations.read_text()
    annotations.write_text(whole + "val_9.JPEG\tn01\t0\n")
    expect(r"1 pictures of val/ stand in val/val_annotations.txt and are not there: val_9")
    annotations.write_text(whole.partition("\n")[2])
    expect(r"1 pictures of val/ are not in val/val_annotations.txt: val_0.JPEG")
    annotations.write_text(whole + "val_9.JPEG\n")
    expect(r"val_annotations.txt is damaged")
    annotations.write_bytes(b"\xff\xfe\x00")
    expect(r"val_annotations.txt is damaged")
    annotations.unlink()
    expect(r"val/ has neither val_annotations.txt nor class folders")
    (tiny / "val").rename(tiny / "valid")
    expect(r"has no pictures in val/.*source=folder")
    with pytest.raises(UserError, match=r"tiny-imagenet-200.zip as --config.data.path"):
        sources.check_source("tiny_imagenet", data_dir=str(tiny))


def test_a_zip_file_is_not_trusted(tiny):
    """Breaks when a member is unpacked that is larger than it says, or than is allowed."""
    path = pathlib.Path(pack(tiny, "zip"))
    with pytest.raises(UserError, match=r"max_total_gb allows"):
        sources.check_source("tiny_imagenet", path=str(path), max_total_gb=0)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("tiny-imagenet-200/train/n01/images/n01_0.JPEG")
    for old, new in ((info.CRC, 1), (info.file_size, 10)):
        damaged = content.replace(old.to_bytes(4, "little"), new.to_bytes(4, "little"))
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"n01_0.JPEG"):
            sources.load_source("tiny_imagenet", "train", path=str(path))
    zeros = zipfile.ZipInfo("tiny-imagenet-200/train/n01/images/n01_8.JPEG")
    zeros.compress_type = zipfile.ZIP_DEFLATED
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zeros, bytes(2**25))
    size = (2**25).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(size, (10).to_bytes(4, "little")))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"n01_8.JPEG"):
        sources.load_source("tiny_imagenet", "train", path=str(path))
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"no readable directory, tar or zip file"):
        sources.load_source("tiny_imagenet", "train", path=str(path))
    link = zipfile.ZipInfo("tiny-imagenet-200/train/n01/images/n01_9.JPEG")
    link.external_attr = 0o120777 << 16
    path.write_bytes(content)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"n01_9.JPEG \(a link in a zip file\)"):
        sources.check_source("tiny_imagenet", path=str(path))


@pytest.fixture
def large(tmp_path):
    """An ImageNet of two classes and pictures of many sizes."""
    top = tmp_path / "imagenet"
    for name, files in TRAIN.items():
        for number, (file, value) in enumerate(files.items()):
            write(top / "train" / name / f"{file}.JPEG", value, (8 + number, 12))
    for file, (name, value) in VAL.items():
        write(top / "val" / name / f"{file}.JPEG", value, (20, 10))
    return top


def test_only_listed_pictures_are_read(large, tmp_path):
    """Breaks when the official list is read and not followed, or pictures keep their sizes."""
    everything = sources.load_splits("imagenet", path=str(large), image_size=8)
    assert reds(everything["train"]) == [30, 40, 50, 10, 20]
    assert everything["test"].images.shape == (3, 8, 8, 3)
    listed = tmp_path / "ImageNet_LT_train.txt"
    listed.write_text("train/n02/n02_1.JPEG 1\ntrain/n01/n01_2.JPEG 0\ntrain/n01/n01_0.JPEG 0\n")
    options = {"path": str(large), "image_size": 8, "train_list": str(listed)}
    sets = sources.load_splits("imagenet", **options)
    assert reds(sets["train"]) == [30, 50, 20]
    assert reds(sets["test"]) == [70, 60, 80]
    listed.write_text("train/n01/n01_2.JPEG 0\ntrain/n01/n01_7.JPEG 0\n")
    with pytest.raises(UserError, match=r"names 1 pictures that are not in the data: n01/n01_7"):
        sources.check_source("imagenet", **options)
    with pytest.raises(UserError, match=r"train_list=.* is not read by the source 'folder'"):
        sources.check_source("folder", **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train/n01/a.JPEG 0\nnonsense here\n", "line 2 is no 'train/CLASS/FILE LABEL'"),
        ("train/n01/a.JPEG 0\ntrain/n01/a.JPEG 0\n", "line 2 names n01/a.JPEG again"),
        ("train/n01/a.JPEG 0\ntrain/n01/b.JPEG 1\n", "line 2 gives the class n01 another label"),
        ("train/n01/a.JPEG 0\ntrain/n02/b.JPEG 0\n", "gives two classes one label"),
        ("\n", "is empty"),
        (b"\xff\xfe\x00\x01", "cannot be read as text"),
        (None, "is no file"),
    ],
)
def test_damaged_lists_are_refused(content, message, large, tmp_path):
    listed = tmp_path / "list.txt"
    if content is not None:
        listed.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message):
        sources.check_source("imagenet", path=str(large), train_list=str(listed))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The same ImageNet, written as TFDS prepares imagenet2012: names of files, a validation."""
    data_dir = tmp_path_factory.mktemp("tfds")

    def examples(split):
        rows = [(name, f, v) for name, files in TRAIN.items() for f, v in files.items()]
        if split != "train":
            rows = [(name, f, v) for f, (name, v) in VAL.items()]
        for number, (name, file, value) in enumerate(rows):
            image = Image.new("RGB", (9 + number, 12), (value, 0, 0))
            label = -1 if split == "test" else name  # unknown
            yield number, {"image": image, "file_name": f"{file}.JPEG", "label": label}

    class Builder(tfds.core.GeneratorBasedBuilder):
        name = "imagenet2012"
        VERSION = tfds.core.Version("5.1.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "file_name": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=["n01", "n02"]),
                }
            )
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, dl_manager):
            return {split: examples(split) for split in ("train", "validation", "test")}

        def _generate_examples(self):
            raise NotImplementedError

    Builder(data_dir=data_dir, file_format="array_record").download_and_prepare()
    return data_dir


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_a_prepared_imagenet_is_the_same_as_the_folder(prepared, large, tmp_path, memory):
    """Breaks when validation is not read for test, or the order is that on disk."""
    options = {"image_size": 8, "memory": memory, "cache": str(tmp_path / "cache")}
    of_folder = sources.load_splits("imagenet", path=str(large), **options)
    of_tfds = sources.load_splits("imagenet", data_dir=str(prepared), **options)
    assert of_tfds["test"].labels.tolist() == [1, 0, 1]
    assert sources.fingerprint(of_tfds["train"]) == sources.fingerprint(of_folder["train"])
    listed = tmp_path / "list.txt"
    listed.write_text("train/n02/n02_1.JPEG 1\ntrain/n01/n01_2.JPEG 0\n")
    options["train_list"] = str(listed)
    of_list = sources.load_source("imagenet", "train", data_dir=str(prepared), **options)
    assert reds(of_list) == [50, 20]


def test_pictures_of_many_sizes_are_not_read_as_they_are(prepared):
    with pytest.raises(UserError, match=r"all images must have one size; set --config.data.image"):
        sources.load_source("imagenet", "train", data_dir=str(prepared))


def test_the_list_needs_names_of_files(prepared, monkeypatch):
    assert tfds_source._find_key({"image": 0, "label": 0}) == ""
    monkeypatch.setattr(tfds_source, "_find_key", lambda features: "")
    with pytest.raises(UserError, match=r"no file_name, so data.train_list cannot be followed"):
        tfds_source.read_tfds(
            "imagenet2012",
            "train",
            sources.Request(data_dir=str(prepared), image_size=8),
            lambda names: np.arange(1),
        )
