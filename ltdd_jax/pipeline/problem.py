"""What a config stands for: data, preprocessing, network, augmentation."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax import nets
from ltdd_jax.data import augment, long_tail, normalize, sources, streamed
from ltdd_jax.runtime import files, processes
from ltdd_jax.types import AugmentFn, UserError

_JUDGES = 3  # keeps the split apart from others of the same seed
_LARGE = 224  # pixels; a network that cannot take such images is at fault itself


@dataclasses.dataclass(frozen=True)
class Problem:
    """The long-tailed task, fixed for all stages.

    Attributes:
      train: real training images, sorted by class; the first class need not be the largest.
      test: real test images, or the held-out training images that stand in their place.
      fingerprint: SHA-256 of both.
      preprocessing: fitted to the training images.
      train_images: float32 [N, H, W, C], network input; of a set on disk, rows are read and
        preprocessed when they are indexed.
      test_images: float32 [N', H, W, C], likewise.
      network: student, expert and evaluation network.
      augment: (key, images) -> images.
      judge: "test", or "held_out" where training images judge.
    """

    train: sources.ImageSet
    test: sources.ImageSet
    fingerprint: str
    preprocessing: normalize.Preprocessing
    train_images: np.ndarray | streamed.PreprocessedImages
    test_images: np.ndarray | streamed.PreprocessedImages
    network: nets.Network
    augment: AugmentFn
    judge: str = "test"

    @property
    def num_classes(self) -> int:
        """K."""
        return self.train.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        return tuple(int(n) for n in self.train.class_counts())

    @property
    def test_counts(self) -> np.ndarray:
        """What each class counts in the headline accuracy, int64 [K].

        Its test images; held-out training images are as long-tailed as the rest, so there each
        class counts the same.
        """
        counts = self.test.class_counts()
        return np.ones_like(counts) if self.judge == "held_out" else counts


def load_sets(
    config: ConfigDict, check: Callable[[], None] = lambda: None
) -> tuple[sources.ImageSet, sources.ImageSet]:
    """The long-tailed training set, sorted by class, and the images that judge.

    With data.judge=held_out these are training images, and the test set is not read.

    Args:
      config: validated.
      check: called often while reading; may raise to stop.

    Raises:
      UserError: missing or damaged data, an empty class, different shapes in train and test.
    """
    splits = configs.list_splits(config)
    sets = sources.load_splits(
        config.data.source,
        splits,
        **configs.locate_data(config),
        say=processes.say,
        warn=processes.warn,
        check=check,
    )
    return sort_sets(config, sets["train"], sets.get("test"))


def sort_sets(
    config: ConfigDict, train: sources.ImageSet, test: sources.ImageSet | None
) -> tuple[sources.ImageSet, sources.ImageSet]:
    """The training images, cut to a long tail or as they are, sorted by class; and the judges.

    Args:
      config: validated.
      train: in the order of the source.
      test: likewise; not looked at, and may be None, with data.judge=held_out: then the share
        data.judge_share of each class of the cut training images judges, at least one image, and
        the others are the training set.

    Raises:
      UserError: an empty class, different shapes in train and test, or a class of one image of
        which none can be held out.
    """
    if config.data.judge == "held_out":
        return _hold_out(config, _cut(config, train))
    assert test is not None
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"training images are {train.images.shape[1:]} and test images "
            f"{test.images.shape[1:]}; set --config.data.image_size to bring both to one size"
        )
    if config.data.subset == "long_tail":
        order_test = sources.find_source(config.data.source).order_test
        if order_test is not None:
            test = test.take(order_test(test.labels, test.num_classes))
    train = _cut(config, train)
    _check_classes("test", test)
    return train, test


def _cut(config, train):
    """The training images that count, sorted by class."""
    data = config.data
    if data.subset == "long_tail":
        rows = long_tail.select_long_tail(
            train.labels,
            train.num_classes,
            data.imbalance_factor,
            class_names=train.class_names,
            warn=processes.warn,
        )
    else:
        rows = np.argsort(train.labels, kind="stable")
    train = train.take(rows)
    _check_classes("train", train)
    return train


def _check_classes(split, images):
    empty = [images.class_names[k] for k, n in enumerate(images.class_counts()) if n == 0]
    if empty:
        raise UserError(
            f"class {empty[0]!r} has no {split} image; add some or remove the class from "
            "both train and test"
        )


def _hold_out(config, train):
    """The training images that are kept, and those that judge."""
    single = [train.class_names[k] for k, n in enumerate(train.class_counts()) if n < 2]
    if single:
        raise UserError(
            f"class {single[0]!r} has one training image, so that none can be held out to judge; "
            "lower --config.data.imbalance_factor, add images, or set --config.data.judge=test"
        )
    kept, held = long_tail.hold_out((config.seed, _JUDGES), train.labels, config.data.judge_share)
    return train.take(kept), train.take(held)


def fit_preprocessing(
    config: ConfigDict,
    train: sources.ImageSet,
    cache: epath.Path | None = None,
    warn: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
) -> normalize.Preprocessing:
    """The preprocessing of the training images, from `cache` if that file is there and good."""
    whiten = config.data.whiten == "on"
    if cache is not None and cache.exists():
        found = _load_preprocessing(cache, whiten)
        if found is not None:
            return found
        warn(f"{cache} is damaged; moved to {files.set_aside(cache).name}, fitting it again")
    mean = std = None
    if config.data.normalize:
        mean, std = sources.channel_constants(config.data.source, train.images)
    fitted = normalize.fit(
        train.images,
        mean=mean,
        std=std,
        whiten=whiten,
        zca_eps=config.data.zca_eps,
        say=processes.say,
        check=check,
    )
    if cache is not None:
        try:
            cache.parent.mkdir(parents=True, exist_ok=True)
            normalize.save(fitted, cache)
        except OSError as error:
            raise files.cannot_write(cache, error) from error
    return fitted


def load_problem(
    config: ConfigDict,
    train: sources.ImageSet,
    test: sources.ImageSet,
    cache: epath.Path | None = None,
    warn: Callable[[str], None] = print,
    check: Callable[[], None] = lambda: None,
) -> Problem:
    """Preprocesses the sets and builds what the stages share.

    Args:
      config: a validated config.
      train: from `load_sets`.
      test: from `load_sets`.
      cache: file of the fitted preprocessing; read if it is there, else written.
      warn: called with a sentence when that file is damaged.
      check: called often while whitening; may raise to stop.

    Raises:
      UserError: images too small for the network, or a full disk.
    """
    network = make_network(config, train)
    preprocessing = fit_preprocessing(config, train, cache, warn, check)
    of_test = preprocessing
    if config.data.mismatched_test:
        constants = sources.channel_constants(config.data.source, train.images)
        of_test = normalize.mismatch_test(preprocessing, *constants)
    return Problem(
        train=train,
        test=test,
        fingerprint=sources.fingerprint(train, test),
        preprocessing=preprocessing,
        train_images=streamed.preprocess(preprocessing, train.images),
        test_images=streamed.preprocess(of_test, test.images),
        network=network,
        augment=augment.make_augment(config.augment.strategy),
        judge=config.data.judge,
    )


def make_network(config: ConfigDict, train: sources.ImageSet, name: str = "") -> nets.Network:
    """The network for the training images.

    Args:
      config: validated.
      train: real training images.
      name: of another network than that of the config, in its published size.

    Raises:
      UserError: images too small for the network, or a network that fits no images.
    """

    def build(image_shape):
        return build_network(
            config, name or config.net.name, image_shape, train.num_classes,
            network_options(config, name),
        )  # fmt: skip

    said = (
        f"--config.evaluation.networks={name}" if name else f"--config.net.name={config.net.name}"
    )
    kinds = (ValueError, ZeroDivisionError, TypeError)  # Flax and XLA raise any of these
    try:
        return build(train.images.shape[1:])
    except kinds as error:
        try:
            build((_LARGE, _LARGE, train.images.shape[3]))
        except kinds:
            raise UserError(
                f"{said} cannot be built "
                f"({str(error).strip().splitlines()[0]}); CONTRIBUTING.md says what a network needs"
            ) from error
        has_depth = not name and config.net.name == "convnet"
        depth = f" of --config.net.depth={config.net.depth}" if has_depth else ""
        raise UserError(
            f"{said}{depth} does not fit images of "
            f"{train.images.shape[1]} x {train.images.shape[2]} pixels "
            f"({str(error).strip().splitlines()[0]}); use another network, a smaller depth or "
            "larger images"
        ) from error


def build_network(
    config: ConfigDict,
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    options: Mapping[str, Any],
) -> nets.Network:
    """A network in the precision of the run, built once for a process: large ones take seconds.

    Args:
      config: validated.
      name: in `nets.REGISTRY`.
      image_shape: (H, W, C).
      num_classes: outputs K.
      options: of `nets.list_options`, hashable values.

    Raises:
      ValueError, ZeroDivisionError or TypeError: as `nets.build`.
    """
    dtype = "bfloat16" if config.runtime.precision == "bfloat16" else "float32"
    made_of = name, nets.REGISTRY.get(name), tuple(image_shape), num_classes, dtype
    return _build(made_of, tuple(options.items()))


@functools.cache
def _build(made_of, options):
    name, _, image_shape, num_classes, dtype = made_of
    return nets.build(
        name, image_shape=image_shape, num_classes=num_classes, dtype=dtype, **dict(options)
    )


def network_options(config: ConfigDict, name: str = "") -> dict:
    """Settings that the network takes, beside the shapes of the data; another one has its own."""
    options = {
        "form": config.runtime.convolution,
        "width": config.net.width,
        "depth": config.net.depth,
    }
    if name:
        options = {"form": config.runtime.convolution}
    return {k: v for k, v in options.items() if k in nets.list_options(name or config.net.name)}


def _load_preprocessing(path, whiten):
    """What `normalize.save` wrote, None if it is damaged."""
    try:
        found = normalize.load(path)
    except UserError as error:
        files.raise_if_unreadable(path, error)
        return None
    # A damaged directory of the archive can hide all arrays of the whitening.
    return found if found.whitens == whiten else None
