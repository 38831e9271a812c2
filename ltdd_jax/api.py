"""The Python API: arrays in, a distilled set out; the command line does the same with files."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax import nets, pipeline
from ltdd_jax.data import augment, long_tail
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.dataset import DistilledDataset, load_dataset
from ltdd_jax.evaluate import metrics
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.nets import Network
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import Params, UserError

_TEST_SHARE = 0.2
_TEST_SPLIT = 2  # keeps the split apart from others of the same seed


def distill_dataset(
    images: np.ndarray,
    labels: np.ndarray,
    images_per_class: int = 10,
    method: str = configs.DEFAULT_METHOD,
    budget: str = "quick",
    workdir: str | None = None,
    seed: int = 0,
    *,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> DistilledDataset:
    """Distils labelled pictures, evaluates the result and returns it.

    Args:
      images: uint8 [N, H, W, C], as long-tailed as they are; C is 1 or 3.
      labels: integers [N] in 0..K-1, every class occurs.
      images_per_class: of the synthetic set.
      method: of `ltdd_jax.config.METHODS`.
      budget: "quick" (about 3 minutes), "standard" (about 30) or "thorough".
      workdir: where everything goes; the same call continues there. None is
        runs/arrays_<fingerprint>.
      seed: root of all random numbers.
      test_images: uint8 [N', H, W, C]; without them a fifth of each class is held out.
      test_labels: integers [N'].
      class_names: K names; "0", "1", ... without them.
      settings: dotted config field -> value, in place of what the budget chooses.

    Raises:
      UserError: impossible arrays or settings, one sentence.
    """
    config, sets, place = _prepare(
        images, labels, images_per_class, method, budget, workdir, seed, test_images, test_labels,
        class_names, settings,
    )  # fmt: skip
    pipeline.run(config, place, sets=sets, keep=_keep(settings))
    return load_dataset(place)


@dataclasses.dataclass(frozen=True)
class TrainedExperts:
    """Experts of a working directory, read snapshot by snapshot.

    Attributes:
      network: theirs.
      kinds: "representation" and, where the method needs them, "classifier".
      num_experts: of each kind.
      num_epochs: kind -> last epoch.
      read: (kind, expert, epoch) -> all parameters; epoch -1 is the last.
    """

    network: Network
    kinds: tuple[str, ...]
    num_experts: int
    num_epochs: Mapping[str, int]
    read: Any

    def snapshot(self, kind: str, expert: int, epoch: int = -1) -> Params:
        """All parameters of an expert after `epoch` epochs; -1 is the last."""
        return self.read(kind, expert, epoch)


def train_experts(
    images: np.ndarray,
    labels: np.ndarray,
    method: str = configs.DEFAULT_METHOD,
    budget: str = "quick",
    workdir: str | None = None,
    seed: int = 0,
    *,
    images_per_class: int = 10,
    test_images: np.ndarray | None = None,
    test_labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TrainedExperts:
    """Trains the experts that `method` needs, or finds them; arguments as in `distill_dataset`."""
    config, sets, place = _prepare(
        images, labels, images_per_class, method, budget, workdir, seed, test_images, test_labels,
        class_names, settings,
    )  # fmt: skip
    keep = _keep(settings)
    pipeline.run(config, place, "experts", sets=sets, keep=keep)
    run = pipeline.open_run(config, place, sets=sets, keep=keep)
    kinds = pipeline.make_method(run).experts
    return TrainedExperts(
        network=run.problem.network,
        kinds=kinds,
        num_experts=run.config.experts.num_experts,
        num_epochs={kind: run.config.experts[kind].num_epochs for kind in kinds},
        read=pipeline.Snapshots(run).read,
    )


def evaluate_dataset(
    dataset: DistilledDataset,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    network: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    num_seeds: int = 5,
    num_epochs: int = 1000,
    batch_size: int = 128,
    learning_rate: float | None = None,
    augmentation: str | None = None,
    train_counts: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains fresh networks on a distilled set and tests them (arXiv 2408.14506, evaluation).

    Args:
      dataset: from `load_dataset` or `distill_dataset`.
      test_images: uint8 [N', H, W, C].
      test_labels: integers [N'].
      network: of `ltdd_jax.nets.REGISTRY`; None is the one the set was distilled with.
      width: None is that of the set's network, or the usual one of another.
      depth: likewise.
      num_seeds: networks.
      num_epochs: E; epochs 0 to E inclusive, rate divided by 10 after E // 2 + 1.
      batch_size: images per step.
      learning_rate: None is the one the set was made for.
      augmentation: operations of DSA joined by "_"; "" for none, None for those the set was
        distilled with.
      train_counts: images of each class in the real training set, for many / medium / few.
      seed: root of the random numbers.

    Returns:
      `mean` and `std` of the accuracy in %, `per_seed`, `per_class`, `balanced` and, with
      `train_counts`, the groups present of `many`, `medium`, `few`.

    Raises:
      ValueError: no such network, or one that takes no width or depth.
      UserError: test images that are not uint8 or of another size than the set's, labels or counts
        that do not fit, a class without test images, or a number of something that is 0.
    """
    sizes = {"width": width, "depth": depth}
    _check_numbers(num_seeds=num_seeds, num_epochs=num_epochs, batch_size=batch_size, **sizes)
    dataset = dataset.expand()
    test = _make_test_set(dataset, test_images, test_labels, train_counts)
    evaluator = evaluation.make_evaluator(
        _build_network(dataset, network, sizes),
        augment.make_augment(dataset.augmentation if augmentation is None else augmentation),
        num_rows=len(dataset.labels),
        num_epochs=num_epochs,
        batch_size=batch_size,
        momentum=0.9,
        weight_decay=5e-4,
    )
    rate = dataset.step_size if learning_rate is None else learning_rate
    state = _train(evaluator, dataset, evaluation.learning_rates(rate, num_epochs), num_seeds, seed)
    predict = jax.jit(functools.partial(evaluator.predict, state))
    accuracies = metrics.per_class_accuracy(
        evaluation.predict_in_blocks(predict, dataset.whiten(test.images)),
        test.labels,
        dataset.num_classes,
    )
    test_counts = np.bincount(test.labels, minlength=dataset.num_classes)
    summary = metrics.summarize(
        accuracies, test_counts, test_counts if train_counts is None else np.asarray(train_counts)
    )
    no_groups = metrics.GROUPS if train_counts is None else ()
    return {key: value for key, value in summary.items() if key not in no_groups}


def _make_test_set(dataset, images, labels, train_counts):
    test = _make_set("test_images", images, labels, dataset.class_names)
    if test.images.shape[1:] != dataset.images.shape[1:]:
        raise UserError(
            f"test_images are {list(test.images.shape[1:])} each, but those of the set are "
            f"{list(dataset.images.shape[1:])}: bring them to the same size"
        )
    if train_counts is not None and len(train_counts) != dataset.num_classes:
        raise UserError(
            f"train_counts are {len(train_counts)} numbers, but the set has "
            f"{dataset.num_classes} classes"
        )
    return test


def _check_numbers(**numbers):
    for name, value in numbers.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
            raise UserError(f"{name}={value!r} must be a whole number of 1 or more")


def _build_network(dataset, name, sizes):
    name = name or dataset.network["name"]
    given = {key: size for key, size in sizes.items() if size is not None}
    if name == dataset.network["name"]:
        own = {key: dataset.network[key] for key in sizes if key in nets.list_options(name)}
        given = own | given
    return nets.build(
        name, image_shape=dataset.images.shape[1:], num_classes=dataset.num_classes, **given
    )


def _train(evaluator, dataset, rates, num_seeds, seed):
    """States of the networks after all epochs."""
    keys = jax.random.split(jax.random.key(seed), num_seeds)
    state, run_epochs = jax.jit(evaluator.init)(keys), jax.jit(evaluator.run_epochs)
    data = dataset.images, dataset.label_logits
    with progress(len(rates), desc="evaluate", unit="epoch") as show:
        for epoch, rate in enumerate(rates):
            now = np.full((num_seeds, 1), rate, np.float32)
            state, loss = run_epochs(keys, np.array([epoch], np.int32), state, data, now)
            show(1, loss=float(loss.mean()))
    return state


def _prepare(
    images, labels, ipc, method, budget, workdir, seed, test_images, test_labels, names, settings
) -> tuple[ConfigDict, tuple[ImageSet, ImageSet], str]:
    """Config, training and test set, and working directory of a call."""
    config = _make_config(ipc, method, budget, seed, settings)
    train = _make_set("images", images, labels, names)
    if (test_images is None) != (test_labels is None):
        raise UserError("test_images and test_labels belong together: give both or neither")
    if test_images is None:
        kept, held = long_tail.hold_out((int(seed), _TEST_SPLIT), train.labels, _TEST_SHARE)
        train, test = train.take(kept), train.take(held)
    else:
        test = _make_set("test_images", test_images, test_labels, train.class_names)
    place = workdir or f"runs/arrays_{pipeline.fingerprint(train, test)[:12]}"
    return config, (train, test), str(place)


def _make_config(ipc, method, budget, seed, settings) -> ConfigDict:
    """Validated, as the seed is used before the pipeline looks at it."""
    if method not in configs.METHODS:
        known = ", ".join(configs.METHODS)
        raise UserError(f"method={method!r} is unknown: it must be one of {known}")
    config = configs.base_config()
    config.name = "arrays"
    config.data.source = "arrays"
    config.data.subset = "as_is"
    for field, value in {"seed": seed, "distill.ipc": ipc, "budget": budget}.items():
        value = int(value) if isinstance(value, np.integer) else value
        configs.set_field(config, field, value)
    configs.use_preset(config, method)
    for field, value in (settings or {}).items():
        configs.set_field(config, field, value)
    configs.validate(config, settled=False)
    return config


def _keep(settings):
    return frozenset(settings or ()) | {"distill.ipc"}


def _make_set(name, images, labels, class_names):
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise UserError(
            f"{name} must be uint8 [N, H, W, 1 or 3], not {images.dtype} {list(images.shape)}"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"the labels of {name} must be {len(images)} whole numbers, not {labels.dtype} "
            f"{list(labels.shape)}"
        )
    if not len(labels) or labels.min() < 0:
        raise UserError(f"the labels of {name} must be 0 or more, and there must be some")
    if class_names is None or not len(class_names):  # or an array, which is neither true nor false
        class_names = _number_classes(name, labels)
    if labels.max() >= len(class_names):
        raise UserError(
            f"the labels of {name} go up to {labels.max()}, but there are {len(class_names)} class "
            "names"
        )
    return ImageSet(images, labels.astype(np.int32), tuple(str(n) for n in class_names))


def _number_classes(name, labels):
    """A name for each class; one label such as 2**31 would ask for more than the memory holds."""
    if labels.max() >= len(labels):
        raise UserError(
            f"the labels of {name} go up to {labels.max()}, but there are {len(labels)} images, "
            "and every class must have one: number the classes from 0 on without gaps"
        )
    return [str(k) for k in range(int(labels.max()) + 1)]
