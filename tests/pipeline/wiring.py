"""The only part of the wiring tests that knows names of the package and of its files.

Everything a test of the wiring looks at comes from files which a small real run leaves behind.
The pictures, three classes of 6 x 6 pixels, are made here.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from PIL import Image

from ltdd_jax import config as settings
from ltdd_jax import pipeline
from tests.pipeline import runs

SIDE, CLASSES = 6, ("a", "b", "c")
LONG_TAILED, BALANCED = (12, 6, 3), (8, 8, 8)
MATCHED_EPOCHS = 2  # between start and target
EPOCHS = {"representation": 6, "classifier": 5}


def starts(stage: str, low: int, current: int, high: int, growth: int = 0) -> dict[str, object]:
    """Fields of the start epochs of a phase; `growth` iterations until the range is whole."""
    fields = {"min_start_epoch": low, "current_start_epoch": current, "max_start_epoch": high}
    fields |= {"sequential": growth > 0, "expansion_end": growth or 1}
    return {f"trajectory.{stage}.{name}": value for name, value in fields.items()}


# Everything that is random is switched off but the choice of expert, start and rows.
_COMMON = {
    "data.source": "folder",
    "data.subset": "as_is",
    "data.whiten": "off",
    "net.width": 3,
    "net.depth": 1,
    "augment.strategy": "",
    "experts.num_experts": 3,
    "experts.representation.num_epochs": EPOCHS["representation"],
    "experts.classifier.num_epochs": EPOCHS["classifier"],
    "distill.ipc": 2,
    "trajectory.num_iterations": 1,
    "trajectory.expert_epochs": MATCHED_EPOCHS,
    "trajectory.initial_step_size": 0.05,
    "evaluation.num_seeds": 2,
    "evaluation.extra_rows": (),
    "evaluation.num_epochs": 12,
    "runtime.log_steps": 1,
    "runtime.checkpoint_steps": 1000,
}
_STAGES = {
    "representation": {"learning_rate": 0.3, "weight_decay": 0.02, "rho": 0.05},
    "classifier": {"learning_rate": 0.2, "weight_decay": 0.01, "rho": 0.05},
}
for _stage, _values in _STAGES.items():
    _COMMON |= {f"experts.{_stage}.{name}": value for name, value in _values.items()}
    _COMMON |= {f"experts.{_stage}.batch_size": 8, f"trajectory.{_stage}.student_steps": 2}
    _COMMON |= starts(_stage, 0, 1, 2)
FROZEN = {f"trajectory.{name}_lr": 0.0 for name in ("image", "label", "step_size")}

# Short names of the settings that tests choose.
_FIELDS = {
    "experts_path": "experts.path",
    "num_experts": "experts.num_experts",
    "iterations": "trajectory.num_iterations",
    "initial_images": "trajectory.initial_images",
    "gradient": "trajectory.gradient",
}


def fields(**settings_of_test: object) -> dict[str, object]:
    """Fields of the config from short names."""
    return {_FIELDS[name]: value for name, value in settings_of_test.items()}


def expert_batches(size: int) -> dict[str, object]:
    """Fields that train both kinds of experts on batches of this size."""
    return {f"experts.{stage}.batch_size": size for stage in _STAGES}


def loss_weights(weights: dict[str, float]) -> dict[str, object]:
    """Fields of the weight of every phase."""
    return {f"trajectory.{stage}.loss_weight": weight for stage, weight in weights.items()}


def outer_optimizers(rates: Iterable[float], momenta: Iterable[float]) -> dict[str, object]:
    """Fields of the optimisers of images, label logits and step size."""
    found: dict[str, object] = {}
    for name, rate, momentum in zip(("image", "label", "step_size"), rates, momenta, strict=True):
        found |= {f"trajectory.{name}_lr": rate, f"trajectory.{name}_momentum": momentum}
    return found


def rate_of_real_images(rate: float) -> dict[str, object]:
    """Fields that train networks on real images with this learning rate."""
    return {"evaluation.baseline_rates": (rate,)}


def make_pictures(directory: pathlib.Path, counts: tuple[int, ...]) -> pathlib.Path:
    """A collection with `counts` training and 20 test pictures per class; easy to half learn."""
    generator = np.random.default_rng(7)
    patterns = generator.uniform(0, 255, (len(CLASSES), SIDE, SIDE, 3))
    for split, sizes in (("train", counts), ("test", (20, 20, 20))):
        for name, pattern, size in zip(CLASSES, patterns, sizes, strict=True):
            folder = directory / split / name
            folder.mkdir(parents=True)
            for number in range(size):
                pixels = 0.15 * pattern + generator.uniform(0, 0.85 * 255, pattern.shape)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return directory


def read_pictures(directory: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(network input float64 [N, H, W, 3], labels [N]), sorted by class, whitening being off."""
    paths = sorted((directory / split).glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return images / 255.0, np.array([CLASSES.index(path.parent.name) for path in paths])


_TOUCHED = (
    "jax_debug_key_reuse",
    "jax_compilation_cache_dir",
    "jax_default_matmul_precision",
    "jax_persistent_cache_min_compile_time_secs",
)


@contextlib.contextmanager
def quick_compilation() -> Iterator[None]:
    """Settings of JAX for short programs, undone afterwards."""
    before = {name: jax.config.values[name] for name in _TOUCHED}
    # Draws are used in the forward and in the backward pass on purpose.
    jax.config.update("jax_debug_key_reuse", False)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def run(
    workdir: pathlib.Path,
    pictures: pathlib.Path,
    cache: pathlib.Path,
    stages: tuple[str, ...],
    fields: dict[str, object],
) -> pathlib.Path:
    """Runs stages of the pipeline on `pictures` with `fields` of the config replaced."""
    config = settings.base_config()
    places = {"data.path": str(pictures), "runtime.compilation_cache": str(cache)}
    config.update_from_flattened_dict(_COMMON | places | fields)
    with quick_compilation(), jax.enable_x64(False):
        for stage in stages:
            pipeline.run(config, str(workdir), stage)
    return workdir


def settings_of(stage: str) -> dict[str, float]:
    """Learning rate and the like of the experts of `stage`, and α of GSAM."""
    return {**_STAGES[stage], "alpha": 0.3}


def snapshots(workdir: pathlib.Path) -> dict[tuple[str, int, int], dict[str, np.ndarray]]:
    """Every snapshot on disk: (stage, expert, epoch) -> {"layer.array": float64}.

    The classifier stage stores the classifier alone.
    """
    found: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
    for name, (dtype, shape, data) in runs.snapshots(workdir / "experts").items():
        stage, expert, epoch, *path = name.split(".")
        key = (stage, int(expert.removeprefix("expert_")), int(epoch))
        array = np.frombuffer(data, dtype).reshape(shape).astype(np.float64)
        found.setdefault(key, {})[".".join(path)] = array
    return found


def distill_metrics(workdir: pathlib.Path) -> list[dict[str, float]]:
    """The log line of every iteration."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == "distill"]


def synthetic_set(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """images, label_logits and step_size after the last iteration."""
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        return {name: archive[name] for name in archive.files}


def plant_step_size(workdir: pathlib.Path, factor: float) -> None:
    """Multiplies the learned step size in the file of the synthetic set."""
    arrays = synthetic_set(workdir)
    arrays["step_size"] = np.float32(factor) * arrays["step_size"]
    np.savez(workdir / "synthetic" / "synthetic.npz", **arrays)


def accuracies(workdir: pathlib.Path) -> dict[str, tuple]:
    """Accuracies of the last evaluation, per network and per class, by the set trained on."""
    results = json.loads((workdir / "report.json").read_text())["results"]
    return {row: (found["per_seed"], found["per_class"]) for row, found in results.items()}
