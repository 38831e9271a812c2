"""ImageNet and Tiny-ImageNet as their files come, and lists of the pictures that count.

Both have a folder per class below train/. Of Tiny-ImageNet, val/val_annotations.txt says the
class of each picture in val/images/; where val/ has class folders these count, as for ImageNet.
The test/ of both has no labels and is not read. Labels are the ranks of the sorted class folders.
"""

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from ltdd_jax.data import disk_images, folder
from ltdd_jax.data.collection import Collection, Entry, check_size, open_collection
from ltdd_jax.data.request import Request, describe_error, is_regular_file, list_names, show_name
from ltdd_jax.errors import UserError

ANNOTATIONS = "val_annotations.txt"
_FOLDERS = {"train": "train", "val": "test"}  # folder -> split
_LINE = re.compile(r"(?:\S*/)?([^/\s]+)/([^/\s]+)(?:\s+(\d+))?")  # train/CLASS/FILE LABEL


def read_imagenet(
    request: Request, splits: Sequence[str]
) -> dict[str, tuple[disk_images.Images, np.ndarray, tuple[str, ...]]]:
    """Reads splits of ImageNet or Tiny-ImageNet from a directory, zip or tar file.

    Args:
      request: `path` holds train/ and val/, at its top or in the one folder there; `train_list`
        and what `folder.read_folder` looks at apply.
      splits: "train" and "test", which is read from val/.

    Returns:
      As `folder.read_folder`, the class names are those of the folders.

    Raises:
      UserError: as `folder.read_folder`; another layout; annotations or a list that are damaged or
        name pictures that are not there.
    """
    with open_collection(request) as collection:
        return folder.read_classes(_list_classes(collection, request), request, splits)


def check_imagenet(request: Request) -> None:
    """Finds what `read_imagenet` would refuse, except for damage inside the pictures."""
    with open_collection(request) as collection:
        _list_classes(collection, request)


def read_list(path: str, request: Request) -> dict[str, int | None]:
    """A list of training pictures such as ImageNet_LT_train.txt: "CLASS/FILE" -> label, if given.

    Every line is `train/CLASS/FILE LABEL`; the label may be missing, and folders before the class
    do not count.

    Raises:
      UserError: no such file, a damaged line, a picture that stands in it twice, or labels that
        do not belong to one class each.
    """
    location = epath.Path(path).expanduser()
    if not is_regular_file(location):
        raise UserError(f"data.train_list={path} is no file; give a list of training pictures.")
    check_size(path, location.stat().length, request)
    found: dict[str, int | None] = {}
    labels: dict[str, str | None] = {}
    for number, line in enumerate(_read_lines(location), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(
                f"{path}: line {number} is no 'train/CLASS/FILE LABEL'; replace the list."
            )
        name, file, label = match.groups()
        if f"{name}/{file}" in found:
            raise UserError(f"{path}: line {number} names {name}/{file} again; remove it.")
        if labels.setdefault(name, label) != label:
            raise UserError(
                f"{path}: line {number} gives the class {name} another label than before; replace "
                "the list."
            )
        found[f"{name}/{file}"] = None if label is None else int(label)
    given = [label for label in labels.values() if label is not None]
    if not found or len(set(given)) < len(given):
        what = "gives two classes one label" if found else "is empty"
        raise UserError(f"data.train_list={path} {what}; replace the list.")
    return found


def select_listed(names: Sequence[str], request: Request) -> np.ndarray:
    """Positions of the names "CLASS/FILE" that stand in `request.train_list`, ascending.

    Raises:
      UserError: as `read_list`, or a picture of the list is not among the names.
    """
    listed = read_list(request.train_list, request)
    missing = sorted(listed.keys() - set(names))
    if missing:
        raise UserError(
            f"data.train_list={request.train_list} names {len(missing)} pictures that are not in "
            f"the data: {list_names(missing)}; give the list of this data set."
        )
    return np.array([row for row, name in enumerate(names) if name in listed], np.int64)


def _list_classes(collection: Collection, request: Request) -> dict[str, folder.Classes]:
    files: dict[str, list[tuple[tuple[str, ...], Entry]]] = {
        split: [] for split in _FOLDERS.values()
    }
    annotations = None
    for entry in collection.entries:
        depth = next((d for d, part in enumerate(entry.parts[:2]) if part in _FOLDERS), None)
        if depth is None or not entry.is_file:
            continue
        inside = entry.parts[depth + 1 :]
        if entry.parts[depth] == "val" and inside == (ANNOTATIONS,):
            annotations = entry
        elif folder.is_picture(entry.parts[-1]) and not entry.parts[-1].startswith("."):
            files[_FOLDERS[entry.parts[depth]]].append((inside, entry))
    missing = [name for name, split in _FOLDERS.items() if not files[split]]
    if missing:
        raise UserError(
            f"{request.path} has no pictures in {missing[0]}/; it must hold train/ and val/ (set "
            "--config.data.source=folder for a collection of another layout)."
        )
    train = [_move(entry, "train", inside[0]) for inside, entry in files["train"] if inside[1:]]
    test = _label_test(files["test"], annotations, request)
    if request.train_list:
        rows = select_listed(["/".join(entry.parts[1:]) for entry in train], request)
        train = [train[row] for row in rows]
        kept = {entry.parts[1] for entry in train}
        test = [entry for entry in test if entry.parts[1] in kept]
    arranged = Collection([*train, *test], collection.skipped)
    return folder.list_pictures(arranged, request)


def _label_test(
    files: Iterable[tuple[tuple[str, ...], Entry]], annotations: Entry | None, request: Request
) -> list[Entry]:
    """The pictures of val/ below the folders of their classes."""
    if annotations is None:
        if not any(inside[1:] and inside[0] != "images" for inside, _ in files):
            raise UserError(
                f"{request.path}: val/ has neither {ANNOTATIONS} nor class folders; add the file, "
                "or sort the pictures into one folder per class."
            )
        return [_move(entry, "test", inside[0]) for inside, entry in files if inside[1:]]
    classes = _read_annotations(annotations, request)
    by_name = {entry.parts[-1]: entry for _, entry in files}
    for some, others, what in (
        (by_name.keys(), classes.keys(), f"are not in val/{ANNOTATIONS}"),
        (classes.keys(), by_name.keys(), f"stand in val/{ANNOTATIONS} and are not there"),
    ):
        extra = sorted(some - others)
        if extra:
            raise UserError(
                f"{request.path}: {len(extra)} pictures of val/ {what}: {list_names(extra)}; "
                "unpack the original archive again."
            )
    return [_move(by_name[name], "test", classes[name]) for name in sorted(by_name)]


def _read_annotations(entry: Entry, request: Request) -> dict[str, str]:
    """Picture -> class."""
    if entry.read is None:
        raise UserError(f"{request.path}: {entry.name} is {entry.problem}; replace it.")
    check_size(entry.name, entry.size, request)
    try:
        lines = entry.read().decode().splitlines()
        rows = [line.split() for line in lines if line.strip()]
        return {row[0]: row[1] for row in rows}
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise UserError(
            f"{request.path}: {show_name(entry.name)} is damaged ({describe_error(error)}); unpack "
            "the original archive again."
        ) from error


def _read_lines(location: epath.Path) -> list[str]:
    try:
        return [line.strip() for line in location.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{os.fspath(location)} cannot be read as text ({describe_error(error)}); replace it."
        ) from error


def _move(entry: Entry, split: str, name: str) -> Entry:
    return dataclasses.replace(entry, parts=(split, name, entry.parts[-1]))
