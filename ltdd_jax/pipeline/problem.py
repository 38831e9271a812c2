"""What a config stands for: data, preprocessing, network, augmentation."""

import dataclasses

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ltdd_jax import nets
from ltdd_jax.data import augment, long_tail, normalize, sources
from ltdd_jax.types import AugmentFn, UserError


@dataclasses.dataclass(frozen=True)
class Problem:
    """The long-tailed task, fixed for all stages.

    Attributes:
      train: real training images, sorted by class; the first class need not be the largest.
      test: real test images.
      fingerprint: SHA-256 of both.
      preprocessing: fitted to the training images.
      train_images: float32 [N, H, W, C], network input.
      test_images: float32 [N', H, W, C], network input.
      network: student, expert and evaluation network.
      augment: (key, images) -> images.
    """

    train: sources.ImageSet
    test: sources.ImageSet
    fingerprint: str
    preprocessing: normalize.Preprocessing
    train_images: np.ndarray
    test_images: np.ndarray
    network: nets.Network
    augment: AugmentFn

    @property
    def num_classes(self) -> int:
        """K."""
        return self.train.num_classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.train.images.shape[1:]

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Training images of each class."""
        return tuple(int(n) for n in self.train.class_counts())


def load_sets(config: ConfigDict) -> tuple[sources.ImageSet, sources.ImageSet]:
    """The long-tailed training set, sorted by class, and the test set.

    Raises:
      UserError: missing or damaged data, an empty class, different shapes in train and test.
    """
    data = config.data
    where = {"data_dir": data.data_dir, "path": data.path, "image_size": data.image_size}
    train = sources.load_source(data.source, "train", **where)
    test = sources.load_source(data.source, "test", **where)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise UserError(
            f"training images are {train.images.shape[1:]} and test images "
            f"{test.images.shape[1:]}; set --config.data.image_size to bring both to one size"
        )
    if data.subset == "long_tail":
        if data.source == "cifar10":  # the published program permutes its test set like this
            test = test.take(long_tail.permute_test(test.labels, test.num_classes))
        rows = long_tail.select_long_tail(
            train.labels, train.num_classes, data.imbalance_factor, class_names=train.class_names
        )
    else:
        rows = np.argsort(train.labels, kind="stable")
    train = train.take(rows)
    for split, images in (("train", train), ("test", test)):
        empty = [images.class_names[k] for k, n in enumerate(images.class_counts()) if n == 0]
        if empty:
            raise UserError(
                f"class {empty[0]!r} has no {split} image; add some or remove the class from "
                "both train and test"
            )
    return train, test


def fit_preprocessing(
    config: ConfigDict, train: sources.ImageSet, cache: epath.Path | None = None
) -> normalize.Preprocessing:
    """The preprocessing of the training images, from `cache` if that file is there."""
    if cache is not None and cache.exists():
        return normalize.load(cache)
    mean = std = None
    if config.data.normalize:
        mean, std = normalize.default_constants(config.data.source, train.images)
    fitted = normalize.fit(
        train.images, mean=mean, std=std, whiten=config.data.whiten, zca_eps=config.data.zca_eps
    )
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        normalize.save(fitted, cache)
    return fitted


def load_problem(
    config: ConfigDict,
    train: sources.ImageSet,
    test: sources.ImageSet,
    cache: epath.Path | None = None,
) -> Problem:
    """Preprocesses the sets and builds what the stages share.

    Args:
      config: a validated config.
      train: from `load_sets`.
      test: from `load_sets`.
      cache: file of the fitted preprocessing; read if it is there, else written.

    Raises:
      UserError: images too small for the depth of the network.
    """
    try:
        network = nets.build(
            config.net.name,
            image_shape=train.images.shape[1:],
            num_classes=train.num_classes,
            **network_options(config),
        )
    except ValueError as error:
        raise UserError(
            f"--config.net.depth={config.net.depth} does not fit images of "
            f"{train.images.shape[1]} x {train.images.shape[2]} pixels: {error}"
        ) from error
    preprocessing = fit_preprocessing(config, train, cache)
    of_test = preprocessing
    if config.data.mismatched_test:
        constants = normalize.default_constants(config.data.source, train.images)
        of_test = normalize.mismatch_test(preprocessing, *constants)
    return Problem(
        train=train,
        test=test,
        fingerprint=sources.fingerprint(train, test),
        preprocessing=preprocessing,
        train_images=normalize.apply(preprocessing, train.images),
        test_images=normalize.apply(of_test, test.images),
        network=network,
        augment=augment.make_augment(config.augment.strategy),
    )


def network_options(config: ConfigDict) -> dict:
    """Options of the network beside the shapes of the data; only the ConvNet is scalable."""
    options = {} if config.net.name == "mlp" else {"form": config.runtime.convolution}
    if config.net.name == "convnet":
        options |= {"width": config.net.width, "depth": config.net.depth}
    return options
