"""Breaks when an export overwrites something, leaves half a folder, or fails without a remedy."""

import contextlib
import dataclasses
import errno
import resource
import signal
import sys

import numpy as np
import pytest
from etils import epath

import ltdd_jax
from ltdd_jax import export
from ltdd_jax.data import normalize, views
from ltdd_jax.errors import UserError
from ltdd_jax.export import __main__ as command
from ltdd_jax.export import png
from ltdd_jax.runtime import files
from tests.export import distilled


@pytest.fixture
def dataset():
    return distilled.make_set("plain")


def write_run(dataset, root, name=""):
    """A working directory as far as `load_dataset` reads it."""
    home = root / "sets" / name if name else root
    (home / "synthetic").mkdir(parents=True)
    normalize.save(dataset.preprocessing, root / "preprocessing.npz")
    (home / "set.json").write_text(
        '{"config": {"net": {"name": "mlp"}, "augment": {"strategy": ""}}}'
    )
    np.savez(
        home / "synthetic" / "synthetic.npz",
        images=dataset.images,
        pixels=dataset.pixels,
        labels=dataset.labels,
        label_logits=dataset.label_logits,
        step_size=dataset.step_size,
        class_names=np.array(dataset.class_names),
        partition=dataset.partition,
    )
    return root


def test_a_set_in_an_object_store_is_looked_for_there(dataset, tmp_path, monkeypatch):
    """Breaks when an address is taken for a local path, where nothing is."""
    stored = epath.Path(write_run(dataset, tmp_path / "run"))
    monkeypatch.setattr(files, "resolve", {"gs://bucket/run": stored}.__getitem__)
    loaded = ltdd_jax.load_dataset("gs://bucket/run")
    np.testing.assert_array_equal(loaded.images, dataset.images)


PARTS = ["synthetic.npz", "set.json", "labels.json", "labels-0.npz"]


def write_relabelled_run(dataset, root):
    """A working directory whose labels were replaced."""
    write_run(dataset, root)
    np.savez(root / "synthetic" / "labels-0.npz", label_logits=dataset.label_logits)
    (root / "synthetic" / "labels.json").write_text('{"file": "labels-0.npz"}')


@pytest.mark.parametrize("name", PARTS)
def test_a_set_that_cannot_be_read_now_is_not_called_damaged(dataset, tmp_path, monkeypatch, name):
    """Breaks when missing permission sends the user to a new distillation, or to another file."""
    write_relabelled_run(dataset, tmp_path)
    for read in ("read_bytes", "read_text"):
        whole = getattr(type(epath.Path(tmp_path)), read)

        def fail(path, whole=whole):
            if path.name == name:
                raise PermissionError(errno.EACCES, "Permission denied")
            return whole(path)

        monkeypatch.setattr(type(epath.Path(tmp_path)), read, fail)
    with pytest.raises(UserError, match=f"{name} cannot be read now: Permission denied"):
        ltdd_jax.load_dataset(tmp_path)


@pytest.mark.parametrize("name", PARTS)
def test_the_damaged_part_of_a_set_is_named(dataset, tmp_path, name):
    """Breaks when the user looks for the damage in a file that is whole."""
    write_relabelled_run(dataset, tmp_path)
    assert len(ltdd_jax.load_dataset(tmp_path).labels) == len(dataset.labels)
    (path,) = tmp_path.rglob(name)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=f"{name} is damaged .* run --stage=distill again"):
        ltdd_jax.load_dataset(tmp_path)


def test_an_empty_folder_is_taken_a_full_one_refused(dataset, tmp_path):
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    assert ltdd_jax.export_dataset(dataset, "png", out) == out
    before = sorted(out.rglob("*"))
    with pytest.raises(UserError, match="is there and not an empty folder; nothing is over"):
        ltdd_jax.export_dataset(dataset, "webdataset", out)
    assert sorted(out.rglob("*")) == before and list(out.parent.iterdir()) == [out]


def test_a_link_to_an_empty_folder_is_taken(dataset, tmp_path):
    """Breaks when a link, for instance to a larger disk, is refused once all is written."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    ltdd_jax.export_dataset(dataset, "png", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "disk" / "README.md").exists()


def test_a_file_in_the_place_is_refused(dataset, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="not an empty folder"):
        ltdd_jax.export_dataset(dataset, "png", tmp_path / "out")
    with pytest.raises(UserError, match="cannot be written"):
        ltdd_jax.export_dataset(dataset, "png", tmp_path / "out" / "below")
    assert (tmp_path / "out").read_text() == "mine"


def test_unknown_format_lists_the_known(dataset, tmp_path):
    with pytest.raises(UserError, match="zip is unknown: it must be one of png, huggingface"):
        ltdd_jax.export_dataset(dataset, "zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("format", "package", "remedy"),
    [
        ("huggingface", "pyarrow", r"pip install 'ltdd_jax\[export\]'"),
        ("torch", "torch", "pip install torch"),
    ],
)
def test_missing_package_is_named_with_the_command(
    format, package, remedy, dataset, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"ltdd_jax.export.{export.FORMATS[format]}", raising=False)
    with pytest.raises(UserError, match=f"needs {package}, which is not installed: {remedy}"):
        ltdd_jax.export_dataset(dataset, format, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), RuntimeError("odd")])
def test_a_failure_leaves_nothing_behind(problem, dataset, tmp_path, monkeypatch):
    def fail(dataset, folder):
        (folder / "half").write_text("written")
        raise problem

    monkeypatch.setattr(png, "write", fail)
    expected = UserError if isinstance(problem, OSError) else RuntimeError
    with pytest.raises(expected, match=r"No space left|odd"):
        ltdd_jax.export_dataset(dataset, "png", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["png", "tfds", "webdataset"])
def test_a_disk_that_takes_no_more_is_one_sentence(format, tmp_path):
    """Breaks when a library's own error for it, such as array_record's, ends in a traceback."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\)"):
            ltdd_jax.export_dataset(distilled.make_set("colour"), format, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_in_one_line(number, dataset, tmp_path, monkeypatch, capsys):
    """Breaks when Ctrl-C ends in a traceback, or half a folder stays."""

    def stop(dataset, folder):
        (folder / "half").write_text("written")
        signal.raise_signal(number)

    run = write_run(dataset, tmp_path / "run")
    monkeypatch.setattr(png, "write", stop)
    before = signal.getsignal(number)
    assert command.main([str(run), "--format=png", f"--out={tmp_path / 'out'}"]) == 128 + number
    assert capsys.readouterr().err == f"stopped by {number.name}: nothing was written\n"
    assert list(tmp_path.iterdir()) == [run] and signal.getsignal(number) is before


@pytest.mark.parametrize("cutmix", [0.0, 1.0])
def test_views_are_made_from_the_folder_alone(cutmix, dataset, tmp_path):
    """Breaks when the numbers or the code of the folder give other views than the labels are of."""
    generator = np.random.default_rng(0)
    stored = views.StoredViews(
        generator.normal(size=(3, len(dataset.labels), 2)).astype(np.float16),
        np.array([1, 2], np.uint32),
        views.Recipe(area=(0.2, 0.9), cutmix=cutmix),
    )
    dataset = dataclasses.replace(dataset, views=stored)
    folder = ltdd_jax.export_dataset(dataset, "png", tmp_path / "out")
    code = (folder / "README.md").read_text().split("```python")[-1].split("```")[0]
    found: dict = {}
    with contextlib.chdir(folder):
        exec(code, found)
    np.testing.assert_array_equal(found["views"]["logits"], stored.logits)
    for number in range(3):
        expected = stored.make(dataset.images, number)
        np.testing.assert_allclose(found["make_view"](dataset.images, number), expected, atol=1e-5)


@pytest.mark.parametrize(("partition", "count"), [(1, 4), (2, 16)])
def test_command_exports_the_named_set(dataset, tmp_path, capsys, partition, count):
    """Breaks when pictures that an image holds are not images of their own, or not counted so."""
    dataset = dataclasses.replace(dataset, partition=partition)
    run = write_run(dataset, tmp_path / "run", "five")
    status = command.main([str(run), "--format=png", f"--out={tmp_path / 'out'}", "--set=five"])
    assert status == 0 and f"{count} images of 2 classes are in" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "images").glob("*/*.png"))) == count


def test_command_answers_a_mistake_with_one_line(dataset, tmp_path, capsys):
    run = write_run(dataset, tmp_path / "run", "five")
    assert command.main([str(run), "--format=png", f"--out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "synthetic.npz is missing" in error and error.count("\n") == 1
    with pytest.raises(SystemExit, match="2"):
        command.main([str(run), "--format=zip", "--out=out"])
    assert "invalid choice: 'zip'" in capsys.readouterr().err
