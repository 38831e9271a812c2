"""What practitioners stumbled over. Breaks when a message misleads, or refuses what could run."""

import errno
import pathlib
import runpy
import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import budget as budgets
from ltdd_jax import config as configs
from ltdd_jax import families, fields, nets, pipeline, presets
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.pipeline import artefacts, claims, labels, plan, problem, settle
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import files, lock
from ltdd_jax.types import UserError
from tests.distill import tasks
from tests.pipeline import small_run, tiny_config


def make_config(**changes) -> ConfigDict:
    config = tiny_config.get_config()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def make_set(*counts: int, side: int = 8) -> ImageSet:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.zeros((len(labels), side, side, 1), np.uint8)
    return ImageSet(images, labels, tuple(f"kind{k}" for k in range(len(counts))))


def test_classes_with_fewer_images_than_ipc_are_named_in_one_warning(capfd):
    config = make_config(distill__ipc=10)
    settle.settle_config(config, make_set(30, 6, 10, 1), frozenset())
    said = "".join(capfd.readouterr())
    assert said.count("warning") == 1
    assert "kind1 (6), kind3 (1): the first synthetic images" in said
    assert "kind0" not in said and "kind2" not in said


def test_many_small_classes_are_counted(capfd):
    settle.settle_config(make_config(distill__ipc=3), make_set(*[2] * 25), frozenset())
    assert "kind9 (2) and 15 more" in "".join(capfd.readouterr())


@pytest.mark.parametrize("changes", [{"distill__ipc": 1}, {"trajectory__initial_images": "noise"}])
def test_nothing_is_said_where_nothing_is_repeated(capfd, changes):
    settle.settle_config(make_config(**changes), make_set(6, 1), frozenset())
    assert "warning" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("name", ["rded", "rldd"])
@pytest.mark.parametrize(
    ("ipc", "looked_at", "shown"),
    [(5, 0, ""), (6, 0, "kind1 (5): the first"), (20, 0, "kind1 (5): the first"),
     (20, 3, "kind0 (15), kind1 (5): the first")],
)  # fmt: skip
def test_crops_are_repeated_where_a_class_has_fewer_crops(capfd, name, ipc, looked_at, shown):
    """Breaks when several crops of a picture are called repeated, or too few crops go unsaid."""
    config = tasks.make_config(name, distill__ipc=ipc)
    config[presets.PRESETS[name].section].images_per_class = looked_at
    settle.settle_config(config, make_set(30, 1), frozenset())
    said = "".join(capfd.readouterr())
    assert ("warning" in said) == bool(shown)
    assert not shown or f"is more than the crops of {shown} synthetic images" in said


@pytest.mark.parametrize("name", ["idm", "dream", "dam_ed"])
@pytest.mark.parametrize(("count", "shown"), [(20, ""), (19, "20 pictures of a class, is more")])
def test_pictures_of_images_that_hold_several_are_counted(capfd, name, count, shown):
    """Breaks when a class with fewer pictures than the cells of its images goes unsaid."""
    config = tasks.make_config(name, distill__ipc=5)
    config[presets.PRESETS[name].section].partition = 2
    settle.settle_config(config, make_set(30, count), frozenset())
    said = "".join(capfd.readouterr())
    assert ("warning" in said) == bool(shown)
    assert shown in said and (not shown or f"kind1 ({count}): pictures" in said)


@pytest.mark.parametrize("name", ["dam_ed", "idm", "dream"])
def test_a_budget_counts_the_pictures_that_images_hold(name):
    """Breaks when students of four pictures an image are given time for the images alone."""
    epochs = []
    for factor in (1, 2):
        rows = {"evaluation__rows": ("distilled",), "evaluation__blocks": ("i",)}
        config = tasks.make_config(name, budget="quick", distill__ipc=200, **rows)
        config[presets.PRESETS[name].section].partition = factor
        fixed = frozenset({"distill.ipc", "evaluation.rows"})
        settled = settle.settle_config(config, make_set(300, 250), fixed)
        epochs.append(settled.evaluation.num_epochs)
    assert epochs[1] < epochs[0]


@pytest.mark.parametrize("embedding", ["expert", "teacher"])
def test_a_budget_settles_teachers_where_a_selection_asks_one(capfd, embedding):
    """Breaks when a short run trains the published teacher, or one is settled for nothing."""
    more = {"distill__method": "herding", "selection__rule": "herding"}
    config = make_config(budget="quick", selection__embedding=embedding, **more)
    settle.settle_config(config, make_set(30, 6, 10, 1), frozenset())
    assert ("  teacher." in "".join(capfd.readouterr())) == (embedding == "teacher")


@pytest.mark.parametrize("name", list(configs.METHODS))
@pytest.mark.parametrize("more", [{}, {"selection__labels": "soft", "kernel__teacher_weight": 0.1}])
def test_a_budget_settles_what_the_method_asks_and_nothing_else(capfd, name, more):
    """Breaks when it chooses fields that nothing reads, or leaves a method its published size."""
    more = more | {"evaluation__blocks": ("i",)}
    method = tasks.make_method(name, tasks.make_task(), **more)
    config = tasks.make_config(name, budget="quick", **more)
    settle.settle_config(config, make_set(30, 6, 10), frozenset())
    said, section = "".join(capfd.readouterr()), presets.PRESETS[name].section
    assert ("  experts." in said) == bool(method.experts)
    assert ("  teacher." in said) == bool(method.teachers)
    assert settle.count_teachers(config) == len(method.teachers)
    for other in families.BUILDERS:
        iterates = other == section and method.num_iterations > 0
        assert (f"  {other}." in said) == iterates, other


@pytest.mark.parametrize("name", budgets.BUDGETS)
def test_a_budget_fits_the_config_of_a_published_cell(capfd, name):
    """Breaks when its start epochs, from 20 on, leave no experts that are so short."""
    path = pathlib.Path(__file__).parents[2] / "configs" / "cifar100_lt.py"
    settings = runpy.run_path(str(path))["get_config"]("if20_ipc10")
    settings.budget = name
    configs.validate(settings, settled=False)
    found = settle.settle_config(settings, make_set(30, 6, 10), frozenset())
    configs.validate(found)
    assert found.trajectory.representation.min_start_epoch == 0
    capfd.readouterr()


def test_settings_that_a_budget_is_to_fit_are_not_refused_before():
    """Breaks when the user's epochs are compared with defaults that nothing will use."""
    settings = make_config(budget="quick", experts__representation__num_epochs=1)
    settings.trajectory.representation.max_start_epoch = 20
    configs.validate(settings, settled=False)
    with pytest.raises(UserError, match="reaches beyond the experts"):
        configs.validate(settings)
    settings.budget = ""
    with pytest.raises(UserError, match="reaches beyond the experts"):
        configs.validate(settings, settled=False)


def test_labels_of_experts_are_reckoned_with_by_a_budget(capfd):
    config = make_config(budget="quick", distill__method="dm", labels__relabel="experts")
    settle.settle_config(config, make_set(30, 6, 10), frozenset())
    assert "  experts.num_experts" in (said := "".join(capfd.readouterr()))
    assert "  trajectory." not in said


def test_batches_are_cut_to_the_training_set_and_said(capfd):
    """Breaks when own pictures are refused because the config was made for more of them."""
    config = make_config(experts__representation__batch_size=256)
    found = settle.settle_config(config, make_set(100, 50), frozenset())
    assert found.experts.representation.batch_size == 150
    assert found.experts.classifier.batch_size == config.experts.classifier.batch_size
    assert config.experts.representation.batch_size == 256
    assert "representation.batch_size is lowered to 150" in "".join(capfd.readouterr())


class Plain(nn.Module):
    """A network without settings, as CONTRIBUTING describes one."""

    num_classes: int

    def setup(self):
        self.classifier = nn.Dense(self.num_classes)

    def embed(self, images):
        return images.reshape(len(images), -1)

    def classify(self, features):
        return self.classifier(features)

    def __call__(self, images):
        return self.classify(self.embed(images))


class Nameless(Plain):
    """Its parameters are not called "classifier"."""

    def setup(self):
        self.last = nn.Dense(self.num_classes)

    def classify(self, features):
        return self.last(features)


class Mistaken(Plain):
    """A mistake of its author, which has nothing to do with the images."""

    def embed(self, images):
        return images.nothing


def test_new_network_needs_no_setting_of_ours(monkeypatch):
    """Breaks when width, depth or form are forced on a network that has none."""
    monkeypatch.setitem(nets.REGISTRY, "plain", Plain)
    network = problem.make_network(make_config(net__name="plain"), make_set(3, 2))
    assert network.sizes.num_parameters == 64 * 2 + 2
    assert nets.list_options("plain") == set()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (Nameless, "cannot be built .no parameters called classifier, only last"),
        (Mistaken, "has no attribute 'nothing'"),
    ],
)
def test_mistake_in_a_new_network_is_told_as_it_is(monkeypatch, module, expected):
    monkeypatch.setitem(nets.REGISTRY, "new", module)
    with pytest.raises(Exception, match=expected) as caught:
        problem.make_network(make_config(net__name="new"), make_set(3, 2))
    assert "does not fit images" not in str(caught.value)


def test_images_too_small_are_still_named():
    with pytest.raises(UserError, match="depth=5 does not fit images of 8 x 8 pixels"):
        problem.make_network(make_config(net__depth=5), make_set(3, 2))


def test_every_registered_network_can_be_asked_for():
    assert set(fields.NETS) == set(nets.REGISTRY)


@pytest.mark.parametrize(
    ("number", "text", "expected"),
    [
        (28, "No space left on device", "free some disk space"),
        (122, "Disk quota exceeded", "free some disk space"),
        (30, "Read-only file system", "on another file system"),
        (13, "Permission denied", "change the permissions"),
        (20, "Not a directory", "a part of that path is a file"),
        (21, "Is a directory", "there is a directory of that name"),
        (5, "Input/output error", "use another --workdir"),
    ],
)
def test_each_reason_has_its_remedy(number, text, expected):
    """Breaks when a read-only file system is to be cured by free space."""
    message = str(files.cannot_write("place", OSError(number, text)))
    assert message.startswith(f"cannot write place: {text}; ") and expected in message
    assert ("free some" in message) == (number in (28, 122))


@pytest.mark.parametrize("name", ["main.py", ".git", "data"])
def test_directory_of_something_else_is_refused_and_left_alone(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=f"is not empty \\({name} is there\\)"):
        claims.claim(Workspace(make_config(), str(tmp_path)), "0" * 64)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_empty_new_and_own_directories_are_taken(tmp_path):
    for path in (tmp_path / "new", tmp_path / "new", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        claims.claim(Workspace(make_config(), str(path)), "0" * 64)
        assert (path / "config.json").exists()


def test_first_write_that_failed_does_not_refuse_the_same_command(tmp_path, monkeypatch):
    """Breaks when what a full disk has left counts as a directory of something else."""
    workspace = Workspace(make_config(), str(tmp_path))

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        with pytest.raises(UserError, match=r"cannot write .*config\.json: No space left"):
            claims.claim(workspace, "0" * 64)
    assert list(tmp_path.iterdir()) == []
    claims.claim(workspace, "0" * 64)


@pytest.mark.parametrize("name", ["config.json", lock.NAME])
def test_first_write_that_was_killed_does_not_refuse_the_same_command(tmp_path, monkeypatch, name):
    """Breaks when half of the first record, or of a sign of life, is taken for a foreign file."""
    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path(tmp_path)), "unlink", lambda *_, **__: None)
        patch.setattr(type(epath.Path(tmp_path)), "replace", be_killed)
        with pytest.raises(KeyboardInterrupt):
            files.write_text(tmp_path / name, "half")
    (left,) = tmp_path.iterdir()
    assert left.name == f".{name}.tmp"
    workspace = Workspace(make_config(), str(tmp_path))
    with workspace.hold():
        claims.claim(workspace, "0" * 64)


def be_killed(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("of_experts", "of_sets", "expected"),
    [(9e12, 1e6, "lower --config.experts.num_experts"), (1e6, 9e12, "lower --config.distill.ipc")],
)
def test_disk_that_is_too_small_names_what_fills_it(
    tmp_path, monkeypatch, of_experts, of_sets, expected
):
    monkeypatch.setattr(plan, "missing_trajectory_bytes", lambda *_: of_experts)
    monkeypatch.setattr(plan, "set_bytes", lambda *_: of_sets)
    monkeypatch.setattr(plan, "_is_distilled", lambda *_: False)
    monkeypatch.setattr(files, "free_bytes", lambda _: 1e9)
    root = files.resolve(str(tmp_path))
    run = types.SimpleNamespace(workspace=types.SimpleNamespace(root=root, experts=root))
    with pytest.raises(UserError, match=expected):
        plan.check_disk(run, types.SimpleNamespace(teachers=()), pipeline.STAGES)


def test_experts_on_another_disk_need_their_room_there(tmp_path, monkeypatch):
    """Breaks when the disk of --workdir is asked whether what is written elsewhere fits."""
    root, experts = (files.resolve(str(tmp_path / name)) for name in ("run", "experts"))
    free = {root: 2e9, experts: 2e9}
    monkeypatch.setattr(plan, "missing_trajectory_bytes", lambda *_: 1.5e9)
    monkeypatch.setattr(plan, "set_bytes", lambda *_: 1e9)
    monkeypatch.setattr(plan, "_is_distilled", lambda *_: False)
    monkeypatch.setattr(files, "free_bytes", free.__getitem__)
    run = types.SimpleNamespace(workspace=types.SimpleNamespace(root=root, experts=experts))
    method = types.SimpleNamespace(teachers=())
    with pytest.raises(UserError, match=r"writes about 2\.5 GB"):  # tmp_path is on one disk
        plan.check_disk(run, method, pipeline.STAGES)
    monkeypatch.setattr(files, "identify_disk", [root, experts].index)
    plan.check_disk(run, method, pipeline.STAGES)
    free[experts] = 1e9
    with pytest.raises(
        UserError, match=r"free in .*experts; .*use another --config\.experts\.path"
    ):
        plan.check_disk(run, method, pipeline.STAGES)
    free[experts], free[root] = 2e9, 0.5e9
    with pytest.raises(UserError, match=r"free in .*run; lower --config\.distill\.ipc"):
        plan.check_disk(run, method, pipeline.STAGES)


def test_cache_of_programs_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    """Asked for, it is refused; the one of our own choice is done without."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"compilation_cache=.*or off to keep no compiled"):
        pipeline._find_compilation_cache(str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert pipeline._find_compilation_cache("") == ""
    assert "compiled programs are not kept" in "".join(capfd.readouterr())
    assert pipeline._find_compilation_cache("off") == ""


def test_cache_of_programs_lies_at_home(tmp_path, monkeypatch):
    """Breaks when an empty variable, or a ~ that no shell replaced, puts it where one stands."""
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert pipeline._find_compilation_cache("") == str(home / ".cache" / "ltdd_jax" / "xla")
    assert pipeline._find_compilation_cache("~/xla") == str(home / "xla")
    assert list(here.iterdir()) == []


def test_impossible_run_is_refused_before_it_leaves_a_trace(tmp_path, monkeypatch):
    """Breaks when lowering a number that was refused is a change of settings."""
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match="this run writes about"):
        pipeline.run(make_config(runtime__compilation_cache="off"), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "set.json").exists()


def test_numbers_of_a_constant_picture_stay_finite():
    """A set of equal pictures has no variance to divide by."""
    config = make_config(data__whiten="off", data__normalize=True)
    found = problem.fit_preprocessing(config, make_set(3, 2))
    assert bool(jnp.isfinite(jnp.asarray(found.std)).all())


@pytest.mark.parametrize("name", ["..", "../x", "a/b", ".hidden", "a" * 300, "a b", "x\n"])
def test_name_of_a_set_cannot_leave_the_directory_or_the_file_system(name, tmp_path):
    with pytest.raises(UserError, match=r"(?s)--set=.* is not possible"):
        Workspace(make_config(), str(tmp_path), name)


READERS = {
    "synthetic/iteration_000003.npz": lambda run, path: artefacts.read_kept(run),
    "synthetic/labels-0.npz": labels._is_damaged,
    "preprocessing.npz": lambda run, path: problem.fit_preprocessing(
        run.config, run.problem.train, path
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_an_archive_that_cannot_be_read_now_stays_where_it_is(tmp_path, monkeypatch, name):
    """Breaks when a limit of open files moves aside what is intact, and what cannot come back."""
    run = small_run.make_run(tmp_path)
    small_run.write_sets(run)
    path = epath.Path(tmp_path / name)
    path.touch()

    def fail(path):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(type(path), "read_bytes", fail)
    with pytest.raises(UserError, match=f"{path.name} cannot be read now: Too many open files; "):
        READERS[name](run, path)
    assert path.exists()
