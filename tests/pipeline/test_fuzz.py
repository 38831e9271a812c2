"""Random mistakes: breaks when one ends in anything but a sentence for the user, or a valid run.

LTDD_FUZZ multiplies the number of inputs (1 by default):

    LTDD_FUZZ=50 python -m pytest tests/pipeline/test_fuzz.py
"""

import io
import math
import os
import pathlib
import re
import shutil
import tarfile
import types

import hypothesis
import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from ltdd_jax import config as configs
from ltdd_jax import records
from ltdd_jax.data import sources
from ltdd_jax.pipeline import artefacts, distill, experts, plan, problem
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import files
from ltdd_jax.types import SyntheticSet, UserError
from tests import test_command_line
from tests.pipeline import little, tiny_config

FACTOR = int(os.environ.get("LTDD_FUZZ", "1"))
DEFAULTS = records.flatten(tiny_config.get_config().to_dict())


def examples(number):
    """So many inputs; the same ones every time, whatever the speed of the machine."""
    return hypothesis.settings(
        max_examples=number * FACTOR,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


def check_message(error):
    assert str(error) and "\n" not in str(error), error


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.lists(st.one_of(st.none(), st.integers(), st.floats()), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=1),
    st.sampled_from(["", "convnet", "cifar10", "folder", "tfds:x", "auto", "color_crop", "exact"]),
)


def near(default):
    """Values of the type of a field, around the edges of what is allowed."""
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.sampled_from([-1, 0, 1, 2, 3, 5, 17, 2**31, 2**70])
    if isinstance(default, float):
        return st.sampled_from(
            [-1.0, 0.0, 1e-300, 1e-9, 0.3, 1.0, 7.5, 1e9, 1e300, math.nan, math.inf]
        )
    if isinstance(default, tuple):
        return st.sampled_from([(), (0.1,), (1, 0.5), (0.1, -1.0), (math.nan,), (True,), ("a",)])
    words = st.sampled_from(["convnet", "mlp", *configs.METHODS, "soft", "hard", "real", "all"])
    return st.one_of(st.just(default), st.text(max_size=8), words)


changes = st.dictionaries(st.sampled_from(sorted(DEFAULTS)), st.none(), min_size=1, max_size=4)


def make(values):
    tree = {}
    for path, value in {**DEFAULTS, **values}.items():
        *parents, leaf = path.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return ConfigDict(tree)


@examples(400)
@hypothesis.given(st.dictionaries(st.sampled_from(sorted(DEFAULTS)), anything, max_size=3))
def test_any_value_in_any_field_is_accepted_or_explained(values):
    try:
        configs.validate(make(values))
    except UserError as error:
        check_message(error)


@examples(400)
@hypothesis.given(st.data())
def test_edges_of_ranges_and_combinations_are_accepted_or_explained(data):
    values = {path: data.draw(near(DEFAULTS[path])) for path in data.draw(changes)}
    try:
        configs.validate(make(values))
    except UserError as error:
        check_message(error)


@examples(60)
@hypothesis.given(st.sampled_from(sorted(DEFAULTS)), st.text(max_size=12), st.booleans())
def test_any_text_on_the_command_line_is_accepted_or_explained(path, value, misspelt):
    argument = f"--config.{path}{'x' * misspelt}={value}"
    message = test_command_line.explanation(test_command_line.DIGITS, argument)
    assert "\n" not in message
    assert message or not misspelt


@pytest.fixture(scope="module")
def digits():
    """The data once: reading them takes longer than checking a config."""
    return problem.load_sets(tiny_config.get_config())


@examples(6)
@hypothesis.given(data=st.data())
def test_accepted_config_can_be_traced(data, digits, monkeypatch, tmp_path_factory):
    """Everything up to compilation, for sizes that fit in memory."""
    sizes = st.sampled_from([1, 2, 3, 9])
    values = {}
    for path in data.draw(changes):
        default = DEFAULTS[path]
        values[path] = data.draw(sizes if type(default) is int else near(default))
    config = make(values)
    monkeypatch.setattr(experts, "Snapshots", Zeros)
    try:
        configs.validate(config)
        if config.data.source != "digits" or config.data.image_size:
            return
        train, test = problem.load_sets(config)
        task = problem.load_problem(config, train, test)
        run = Run(config, task, Workspace(config, str(tmp_path_factory.mktemp("run"))), None)
        method = distill.make_method(run)
        assert plan.describe(run, method)
        trace_distillation(task, method)
    except UserError as error:
        check_message(error)


class Zeros:
    """Stands in for the trained experts."""

    def __init__(self, run):
        self._like = jax.eval_shape(run.problem.network.init, jax.random.key(0))

    def read(self, kind, expert, epoch):
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._like)


def trace_distillation(task, method):
    rows = len(method.labels)
    synthetic = SyntheticSet(
        images=jax.ShapeDtypeStruct((rows, *task.image_shape), np.float32),
        label_logits=jax.ShapeDtypeStruct((rows, task.num_classes), np.float32),
        step_size=jax.ShapeDtypeStruct((), np.float32),
    )
    with jax.debug_key_reuse(False):
        state = jax.eval_shape(method.init, jax.random.key(0), synthetic)
        after, metrics = jax.eval_shape(method.step, state, method.read(0))
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert {"loss", *method.limits} <= metrics.keys()


def mutate(data, content: bytes) -> bytes:
    """Cuts, overwrites, inserts or replaces."""
    kind = data.draw(st.sampled_from(["cut", "flip", "insert", "replace"]))
    place = data.draw(st.integers(0, max(len(content) - 1, 0)))
    piece = data.draw(st.binary(min_size=1, max_size=8))
    if kind == "cut":
        return content[:place]
    if kind == "flip":
        return content[:place] + piece + content[place + len(piece) :]
    if kind == "insert":
        return content[:place] + piece + content[place:]
    return data.draw(st.binary(max_size=64))


def make_place(root):
    """What `artefacts.read_set` looks at of a run."""
    return types.SimpleNamespace(
        workspace=types.SimpleNamespace(synthetic=epath.Path(root) / "synthetic"),
        problem=types.SimpleNamespace(num_classes=10, image_shape=(8, 8, 1)),
    )


@examples(150)
@hypothesis.given(data=st.data())
def test_damaged_synthetic_npz_is_refused_or_intact(data, tmp_path_factory):
    place = make_place(tmp_path_factory.getbasetemp() / "npz")
    arrays = {
        "images": np.arange(640, dtype=np.float32).reshape(10, 8, 8, 1),
        "label_logits": np.arange(100, dtype=np.float32).reshape(10, 10),
        "step_size": np.float32(0.1),
        "labels": np.arange(10, dtype=np.int32),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.write_bytes(artefacts.find_set(place, "synthetic"), mutate(data, buffer.getvalue()))
    try:
        found = artefacts.read_set(place, "synthetic")
    except UserError as error:
        check_message(error)
    else:
        np.testing.assert_array_equal(found.labels, arrays.pop("labels"))
        for name, array in arrays.items():
            np.testing.assert_array_equal(getattr(found.synthetic, name), array)


names = st.sampled_from(["images", "label_logits", "step_size", "labels", "other"])
shapes = st.sampled_from([(), (10,), (10, 10), (10, 8, 8, 1), (3, 8, 8, 1), (0,)])
dtypes = st.sampled_from([np.float32, np.float64, np.int32, np.uint8, np.bool_, np.complex64])


@examples(60)
@hypothesis.given(st.dictionaries(names, st.tuples(shapes, dtypes, st.booleans())), st.booleans())
def test_npz_of_something_else_is_refused(tmp_path_factory, chosen, is_near):
    """Also when all arrays but those that were drawn are as they should be."""
    place = make_place(tmp_path_factory.getbasetemp() / "other")
    arrays = {
        "images": np.ones((10, 8, 8, 1), np.float32),
        "label_logits": np.ones((10, 10), np.float32),
        "step_size": np.float32(0.1),
        "labels": np.arange(10, dtype=np.int32),
    }
    arrays = arrays if is_near else {}
    for name, (shape, dtype, bad) in chosen.items():
        value = np.nan if np.issubdtype(dtype, np.inexact) else 10
        arrays[name] = np.full(shape, value if bad else 1).astype(dtype)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    files.write_bytes(artefacts.find_set(place, "synthetic"), buffer.getvalue())
    try:
        found = artefacts.read_set(place, "synthetic")
    except UserError as error:
        check_message(error)
    else:
        images, rows = found.synthetic.images, len(found.labels)
        assert np.isfinite(images).all() and images.shape == (rows, 8, 8, 1)
        assert rows and found.labels.min() >= 0 and found.labels.max() < 10


@examples(100)
@hypothesis.given(data=st.data())
def test_damaged_preprocessing_is_made_again(data, digits, tmp_path_factory):
    config, train = tiny_config.get_config(), digits[0].take(np.arange(0, 400, 20))
    path = epath.Path(tmp_path_factory.getbasetemp() / "fuzzed" / "preprocessing.npz")
    path.unlink(missing_ok=True)
    fitted = problem.fit_preprocessing(config, train, path)
    path.write_bytes(mutate(data, path.read_bytes()))
    warnings = []
    found = problem.fit_preprocessing(config, train, path, warnings.append)
    assert all("preprocessing.npz is damaged" in warning for warning in warnings)
    for name, value in vars(fitted).items():
        np.testing.assert_array_equal(getattr(found, name), value)


@examples(100)
@hypothesis.given(data=st.data())
def test_damaged_sealed_json_is_refused_or_intact(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "sealed.json"
    record = {"identity": {"a": 1.5, "b": ["x", None]}, "step": 3}
    files.write_sealed(path, record)
    path.write_bytes(mutate(data, path.read_bytes()))
    try:
        assert files.read_sealed(path) == record
    except files.DamagedFileError as error:
        check_message(error)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for suffix in ("png", "jpg", "bmp"):
                pixels = generator.integers(0, 256, (6, 6, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"0.{suffix}")
    return root


def check_source(name, **where):
    try:
        images = sources.load_source(name, "train", **where)
    except UserError as error:
        assert str(error)
    else:
        assert images.images.dtype == np.uint8 and images.images.ndim == 4
        assert images.labels.dtype == np.int32 and len(images.labels) == len(images.images)


@examples(80)
@hypothesis.given(data=st.data())
def test_damaged_picture_folder_is_read_or_refused(data, pictures, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "mutated"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(pictures, root)
    found = sorted(root.glob("**/*"))
    for path in data.draw(st.lists(st.sampled_from(found), max_size=3)):
        if not path.exists():
            continue
        if path.is_dir():
            name = data.draw(st.sampled_from(["train", "test", "cat", "bird", ".x", "0.png"]))
            if not (path.parent / name).exists():
                path.rename(path.parent / name)
        elif data.draw(st.booleans()):
            path.write_bytes(mutate(data, path.read_bytes()))
        else:
            path.unlink()
    check_source("folder", path=str(root), image_size=data.draw(st.sampled_from([0, 4])))


@examples(60)
@hypothesis.given(data=st.data())
def test_damaged_tar_is_read_or_refused(data, pictures, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mutated.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(pictures, arcname="")
    path.write_bytes(mutate(data, path.read_bytes()))
    check_source("folder", path=str(path))


@pytest.fixture(scope="module")
def array_records(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    little.Little(data_dir=root, file_format="array_record").download_and_prepare()
    return root


@examples(40)
@hypothesis.given(data=st.data())
def test_damaged_array_records_are_read_or_refused(data, array_records, tmp_path_factory):
    root = tmp_path_factory.getbasetemp() / "records"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(array_records, root)
    path = data.draw(st.sampled_from(sorted(p for p in root.glob("**/*") if p.is_file())))
    if data.draw(st.booleans()):
        path.write_bytes(mutate(data, path.read_bytes()))
    else:
        path.unlink()
    check_source("tfds:little", data_dir=str(root))


def test_inputs_are_what_the_documentation_counts():
    """docs/reliability.md states how many inputs are tried."""
    text = pathlib.Path(__file__).read_text()
    number = sum(int(n) for n in re.findall(r"^@examples\((\d+)\)", text, re.MULTILINE))
    page = pathlib.Path(__file__).parents[2] / "docs" / "reliability.md"
    assert f"{number:,} random inputs" in page.read_text()
