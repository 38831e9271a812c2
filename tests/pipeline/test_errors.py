"""Breaks when a mistake ends in a traceback, in exit code 0, or in a message without a remedy."""

import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from ltdd_jax import main
from ltdd_jax.pipeline import experts
from tests.pipeline import runs


@pytest.fixture
def end(settings, monkeypatch, capsys, tiny):
    """Calls `main` with a config and returns the exit code and the message."""

    def call(workdir, stage="all", set_name="", config=None, **fields):
        flags = {"CONFIG": config or tiny(**fields), "WORKDIR": str(workdir), "STAGE": stage}
        flags |= {"SET": set_name}
        flags |= {
            "DRY_RUN": False,
            "DISTRIBUTED": False,
            "COORDINATOR": None,
            "NUM_PROCESSES": None,
        }
        flags |= {"PROCESS_ID": None}
        for name, value in flags.items():
            monkeypatch.setattr(main, f"_{name}", types.SimpleNamespace(value=value))
        capsys.readouterr()
        code = main.main([])
        errors = capsys.readouterr().err
        assert errors.count("error: ") == 1 and "Traceback" not in errors
        return code, errors[errors.index("error: ") :]  # what came before was progress

    return call


def make_pictures(root, *, sizes=((8, 8),), test_sizes=((8, 8),), count=3):
    generator = np.random.default_rng(0)
    for split, shapes in (("train", sizes), ("test", test_sizes)):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                shape = (*shapes[number % len(shapes)], 3)
                picture = Image.fromarray(generator.integers(0, 256, shape, np.uint8))
                picture.save(folder / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"distill__ipc": 0}, "--config.distill.ipc=0 is not possible"),
        ({"data__imbalance_factor": 0.5}, "--config.data.imbalance_factor=0.5 is not possible"),
        ({"data__source": "mnist"}, "--config.data.source=mnist is not possible"),
        ({"data__imbalance_factor": 1000.0}, "class '7' would be empty"),
        ({"trajectory__representation__min_start_epoch": 4}, "leaves no start epoch"),
        ({"net__depth": 5}, "--config.net.depth=5 does not fit images of 8 x 8 pixels"),
        ({"net__name": "vgg11"}, "--config.net.name=vgg11 does not fit images of 8 x 8 pixels"),
        ({"data__image_size": 16}, "this source does not resize"),
        ({"data__source": "cifar10", "data__data_dir": "/nowhere"}, "data.prepare cifar10"),
        ({"data__source": "tfds:nothing", "data__data_dir": "/nowhere"}, "is not prepared"),
        ({"data__source": "folder", "data__path": "/nowhere"}, "data.path=/nowhere does not exist"),
    ],
)
def test_mistake_gives_one_message_and_code_2_and_leaves_nothing(end, tmp_path, fields, expected):
    code, message = end(tmp_path / "run", **fields)
    assert code == 2
    assert message.startswith("error: ") and expected in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_unknown_field_of_a_config_object(end, tmp_path, tiny):
    config = tiny().unlock()
    config.distill.ipx = 3
    code, message = end(tmp_path / "run", config=config)
    assert (code, "--config.distill.ipx is not a field" in message) == (2, True)


@pytest.mark.parametrize(
    ("pictures", "expected"),
    [
        ({"sizes": ((8, 10),)}, "most pictures are 10x8 pixels, but not test/cat/0.png (8x8)"),
        ({"sizes": ((8, 8), (9, 9))}, "but not train/cat/1.png (9x9), train/dog/1.png (9x9); set"),
        ({"test_sizes": ((9, 9),)}, "9x9"),
        ({"count": 0}, "has no picture"),
    ],
)
def test_pictures_that_do_not_fit(end, tmp_path, pictures, expected):
    path = make_pictures(tmp_path / "pictures", **pictures)
    code, message = end(
        tmp_path / "run", data__source="folder", data__path=str(path), data__subset="as_is"
    )
    assert (code, message.count("\n")) == (2, 1)
    assert expected in message


def test_workdir_of_another_seed_or_other_data_is_refused_with_the_fields(end, copy):
    workdir = copy()
    code, message = end(workdir, data__zca_eps=0.2, seed=1)
    assert (code, message.count("\n")) == (2, 1)
    assert "is of another seed or other data: data.zca_eps: 0.1 -> 0.2; seed: 0 -> 1" in message
    assert "give another --workdir" in message


def test_workdir_of_other_data_is_refused(end, copy, monkeypatch):
    monkeypatch.setattr("ltdd_jax.pipeline.fingerprint", lambda *sets: "changed")
    code, message = end(copy())
    assert (code, "data_fingerprint: '" in message) == (2, True)


def test_trajectories_of_other_settings_are_refused_with_the_fields(end, finished, tmp_path, tiny):
    """Even where somebody moved them to the name of these settings."""
    wanted = types.SimpleNamespace(
        config=tiny(experts__representation__rho=0.5, seed=3, data__whiten="on"),
        problem=types.SimpleNamespace(
            fingerprint=json.loads((finished / "report.json").read_text())["data_fingerprint"]
        ),
    )
    name = experts.name_directory(wanted, "representation")
    assert not (finished / "experts" / name).exists()
    shutil.copytree(runs.find_experts(finished, "representation"), tmp_path / "experts" / name)
    wanted.config.experts.path = str(tmp_path / "experts")
    code, message = end(tmp_path / "run", config=wanted.config)
    assert code == 2
    assert "were made with other settings: experts.representation.rho: 0.01 -> 0.5; seed" in message
    assert not (tmp_path / "experts" / ".lock").exists()


def test_stages_without_what_they_need_say_which_stage_to_run(end, tmp_path, copy):
    code, message = end(tmp_path / "run", "distill")
    assert code == 2
    assert "2 of 2 representation experts are missing" in message and "--stage=experts" in message
    code, message = end(tmp_path / "run", "evaluate")
    assert (code, "synthetic.npz is missing; run --stage=distill" in message) == (2, True)


def test_workdir_that_cannot_be_made(end, tmp_path):
    (tmp_path / "file").write_text("")
    code, message = end(tmp_path / "file" / "run")
    assert (code, message.count("\n")) == (2, 1)
    assert "cannot write" in message and "--workdir" in message


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"experts__representation__learning_rate": 1e30}, "experts.representation.learning_rate"),
        ({"trajectory__image_lr": 1e30}, "distillation went wrong at iteration"),
        (
            {"distill__method": "random", "evaluation__baseline_rates": (1e30,)},
            "lower --config.evaluation.baseline_rates, which they come from",
        ),
        pytest.param(
            {"trajectory__step_size_lr": 1e30},
            "distillation went wrong at iteration",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_numbers_that_go_wrong_are_named_and_never_saved(end, tmp_path, finished, fields, expected):
    """The first bad step ends the run, before a checkpoint is due."""
    if "trajectory__image_lr" in fields or "trajectory__step_size_lr" in fields:
        fields = {**fields, "experts__path": str(finished / "experts")}
    code, message = end(tmp_path / "run", **fields)
    assert (code, message.count("\n")) == (2, 1)
    assert expected in message and "lower" in message
    for path in (tmp_path / "run").glob("**/*_????*"):
        if (path / "tree").exists():
            assert all(np.isfinite(x).all() for x in runs.read_arrays(path).values()), path


def test_program_ends_with_one_message(program, copy):
    """The same through a process, once."""
    output = program.run(copy(), "--config.seed=1", expect=2)
    assert output.splitlines()[-1].startswith("error: ") and "seed: 0 -> 1" in output
