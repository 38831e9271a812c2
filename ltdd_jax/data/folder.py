"""The user's own pictures: class folders in a directory, tar or zip file, never unpacked to disk.

Layout: PATH/{train,test}/<class>/<picture>, where one folder more may stand around train and test
and pictures may lie deeper inside their class folder. Without test, or with class folders alone, a
fifth of each class is held out for the test. The class folders of train, in alphabetical order,
define the labels; the pictures of a class are sorted by name.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from ltdd_jax.data import disk_images, pictures
from ltdd_jax.data.collection import (
    Collection,
    Entry,
    Parts,
    check_size,
    check_total,
    open_collection,
)
from ltdd_jax.data.request import SPLITS, Request, list_names
from ltdd_jax.errors import UserError

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

# Of a split in other collections; where all class folders are called so they are none.
_OTHER_SPLITS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))

Classes = dict[str, list[Entry]]  # class -> pictures
_TEST_SHARE = 0.2  # of each class, where there is no test


def read_folder(
    request: Request, splits: Sequence[str]
) -> dict[str, tuple[disk_images.Images, np.ndarray, tuple[str, ...]]]:
    """Reads splits of a picture collection, as `pictures.decode_all` does.

    A file that stands under several names in one split counts once, under the first name.

    Args:
      request: `path` is a directory, or a .zip, .tar or compressed .tar file; `image_size`,
        `follow_links`, `max_file_mb`, `max_total_gb` and the callbacks apply.
      splits: "train", "test" or both; both are read in one pass.

    Returns:
      For every split: images uint8 [N, H, W, 3] sorted by class and name, labels int32 [N], and
      the class names.

    Raises:
      UserError: missing path, split, class or picture; fewer than two classes; classes of test
        that differ from those of train; pictures that cannot be used; files beyond the limits.
    """
    with open_collection(request) as collection:
        return read_classes(list_pictures(collection, request), request, splits)


def read_classes(
    classes: dict[str, Classes], request: Request, splits: Sequence[str]
) -> dict[str, tuple[disk_images.Images, np.ndarray, tuple[str, ...]]]:
    """Reads what `list_pictures` has listed, while the collection is open; see `read_folder`."""
    names = tuple(classes["train"])
    entries = {split: [e for name in names for e in classes[split][name]] for split in splits}
    images = pictures.decode_all([e for split in splits for e in entries[split]], request)
    result, start = {}, 0
    for split in splits:
        end = start + len(entries[split])
        counts = [len(classes[split][name]) for name in names]
        labels = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        result[split] = (disk_images.take(images, slice(start, end)), labels, names)
        start = end
    return result


def measure_sides(request: Request) -> list[int]:
    """Shorter sides in pixels of a sample of the training pictures; errors as in `read_folder`."""
    with open_collection(request) as collection:
        train = list_pictures(collection, request)["train"]
        return pictures.measure_sides([entry for entries in train.values() for entry in entries])


def check_folder(request: Request) -> None:
    """Finds what `read_folder` would refuse, except for damage inside the pictures."""
    with open_collection(request) as collection:
        list_pictures(collection, request)


def list_pictures(collection: Collection, request: Request) -> dict[str, Classes]:
    """Split -> class -> pictures, both sorted by name; nothing is missing, all can be opened.

    Raises:
      UserError: as `read_folder`, except for damage inside the pictures.
    """
    path = request.path
    links = ""
    if collection.skipped:
        links = (
            f"links to folders were not followed: {list_names(sorted(collection.skipped))}; "
            "--config.data.follow_links=true follows them."
        )
    try:
        listed = _sort_into_classes(collection.entries, request)
        classes = {split: _drop_repeats(found, request) for split, found in listed.items()}
        if not classes["test"]:
            classes = _hold_out_test(classes["train"], request)
        _check_classes(path, classes)
    except UserError as error:
        raise UserError(f"{error} {links}".strip()) from error
    if links:
        request.warn(f"{path}: {links}")
    found = [e for of_split in classes.values() for each in of_split.values() for e in each]
    problems = sorted(f"{entry.name} ({entry.problem})" for entry in found if entry.problem)
    if problems:
        raise UserError(f"{path}: not usable as pictures: {list_names(problems)}; remove them.")
    total = 0
    for entry in found:
        check_size(entry.name, entry.size, request)
        total += entry.size
        check_total(total, request)
    return classes


def _sort_into_classes(entries: list[Entry], request: Request) -> dict[str, Classes]:
    # macOS adds "._x" files and __MACOSX to archives; other dot files are no pictures either.
    visible = [e for e in entries if not any(p[0] == "." or p == "__MACOSX" for p in e.parts)]
    root, has_splits = _find_root(request.path, visible)
    classes: dict[str, Classes] = {split: {} for split in SPLITS}
    ignored, outside = [], []
    for entry in visible:
        parts = entry.parts[len(root) :]
        parts = parts if has_splits else ("train", *parts)
        inside = entry.parts[: len(root)] == root and len(parts) >= (3 if entry.is_file else 2)
        if not inside or parts[0] not in SPLITS:
            outside += [entry.name] if entry.is_file and is_picture(entry.parts[-1]) else []
            continue
        of_class = classes[parts[0]].setdefault(parts[1], [])
        if entry.is_file and is_picture(parts[-1]):
            of_class.append(entry)
        elif entry.is_file:
            ignored.append(entry.name)
    if ignored:
        request.warn(
            f"{request.path}: ignored {len(ignored)} files such as {list_names([min(ignored)])}"
        )
    if outside:
        request.warn(
            f"{request.path}: ignored {len(outside)} pictures that are in no class folder of "
            f"train/ or test/, such as {list_names([min(outside)])}"
        )
    return {
        split: {name: sorted(found[name], key=lambda entry: entry.parts) for name in sorted(found)}
        for split, found in classes.items()
    }


def _drop_repeats(of_split: Classes, request: Request) -> Classes:
    """Without the further names of a file that was met before in this split.

    What cannot be read has no identity and stays, to be named with its problem.
    """
    first: dict[object, Entry] = {}
    repeats = []
    for entry in (entry for each in of_split.values() for entry in each):
        if not entry.problem and first.setdefault(entry.identity, entry) is not entry:
            repeats.append(f"{entry.name} ({first[entry.identity].name})")
    if repeats:
        request.warn(
            f"{request.path}: {len(repeats)} pictures are further names of others and count once: "
            f"{list_names(repeats)}"
        )
    kept = {
        name: [e for e in each if e.problem or first[e.identity] is e]
        for name, each in of_split.items()
    }
    for name, each in of_split.items():
        if each and not kept[name]:
            raise UserError(
                f"{request.path}: all pictures of class {name!r} are links to pictures of other "
                f"classes, such as {repeats[0]}; a picture can have one class only."
            )
    return kept


def _find_root(path: str, entries: list[Entry]) -> tuple[Parts, bool]:
    """The folder that holds train and test, or else class folders; and which of the two it is.

    It is the top, or the one folder in it that has them.
    """
    found: dict[Parts, set[str]] = {}
    for entry in entries:
        for depth in range(min(2, len(entry.parts))):
            if entry.parts[depth] in SPLITS:
                found.setdefault(entry.parts[:depth], set()).add(entry.parts[depth])
                break
    if not found:
        return _find_classes(path, entries), False
    root, *others = sorted(found)
    if root and others:
        raise UserError(
            f"{path} has train/ or test/ in both {root[0]}/ and {others[0][0]}/; give the path of "
            "one of them."
        )
    if "train" not in found[root]:
        raise UserError(
            f"{'/'.join((path, *root))} has no folder train/; it must hold train/, or train/ and "
            "test/, with one folder per class."
        )
    return root, True


def _find_classes(path: str, entries: list[Entry]) -> Parts:
    """The folder that holds the class folders, where there is neither train nor test."""
    pictures_at = {len(e.parts) for e in entries if e.is_file and is_picture(e.parts[-1])}
    if not pictures_at or min(pictures_at) < 2:
        raise UserError(
            f"{path} has neither train/ nor test/ nor class folders with pictures; it must hold "
            "one folder per class, alone or in train/ and test/."
        )
    tops = _name_folders(entries, 0)
    root = tuple(tops) if len(tops) == 1 and min(pictures_at) > 2 else ()
    names = _name_folders(entries, len(root))
    if {name.lower() for name in names} <= _OTHER_SPLITS:
        raise UserError(
            f"{path} has the folders {', '.join(f'{name}/' for name in sorted(names))}, which "
            "would be taken for classes; rename them to train/ and test/."
        )
    return root


def _name_folders(entries: list[Entry], depth: int) -> set[str]:
    """Names of all folders at a depth, from 0."""
    return {e.parts[depth] for e in entries if len(e.parts) > depth + e.is_file}


def is_picture(name: str) -> bool:
    """Whether a file is taken for a picture, by the end of its name."""
    return pathlib.PurePosixPath(name).suffix.lower() in _SUFFIXES


def _hold_out_test(train: Classes, request: Request) -> dict[str, Classes]:
    """A fifth of each class, at least one picture, becomes the test set."""
    kept: dict[str, Classes] = {"train": {}, "test": {}}
    for number, (name, entries) in enumerate(train.items()):
        if len(entries) == 1:
            raise UserError(
                f"{request.path}: class {name!r} has one picture, and there is no test/; add "
                "pictures, so that one can be held out for the test, or remove the class."
            )
        order = np.random.default_rng(number).permutation(len(entries))
        held = set(order[: max(1, int(_TEST_SHARE * len(entries)))].tolist())
        for split, wanted in (("train", False), ("test", True)):
            kept[split][name] = [e for i, e in enumerate(entries) if (i in held) == wanted]
    count, total = (sum(map(len, c.values())) for c in (kept["test"], train))
    request.say(f"{request.path} has no test/: {count} of {total} pictures are held out for it")
    return kept


def _check_classes(path: str, classes: dict[str, Classes]) -> None:
    for split, found in classes.items():
        if not found:
            raise UserError(
                f"{path}: {split}/ has no class folder; put one folder per class there."
            )
        for name in found:
            if not name.isprintable():  # also file names that are not valid text
                raise UserError(
                    f"{path}: the class folder {name!a} of {split}/ has a name with signs "
                    "that cannot be printed; rename it."
                )
            if not found[name]:
                raise UserError(
                    f"{path}: class {name!r} of {split}/ has no picture (*.jpg, *.png, ...); add "
                    "some or remove the class from train/ and test/."
                )
    for split, other in (SPLITS, SPLITS[::-1]):
        extra = sorted(set(classes[split]) - set(classes[other]))
        if extra:
            raise UserError(
                f"{path}: class {extra[0]!r} is in {split}/ but not in {other}/; both must have "
                "the same class folders."
            )
    if len(classes["train"]) < 2:
        raise UserError(
            f"{path} has the single class {next(iter(classes['train']))!r}; a classifier needs at "
            "least two class folders."
        )
