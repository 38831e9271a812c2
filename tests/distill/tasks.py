"""The smallest task a method can be built for, with snapshots made up on the spot."""

import functools

import jax
import numpy as np

from ltdd_jax import config as configs
from ltdd_jax import families, nets
from ltdd_jax.data import normalize
from ltdd_jax.distill import Method, Task, Teacher
from ltdd_jax.presets import PRESETS
from ltdd_jax.runtime import prng

CLASS_COUNTS = (6, 3, 1)  # the last class has fewer images than a set of two per class
IPC = 2
TINY = {
    "distill.ipc": IPC,
    "experts.num_experts": 2,
    "trajectory.num_iterations": 4,
    "trajectory.batch_size": 4,
    "trajectory.image_lr": 1.0,
    "trajectory.step_size_lr": 1e-3,
    "trajectory.initial_step_size": 0.1,
    "trajectory.representation.student_steps": 2,
    "trajectory.classifier.student_steps": 2,
    "recovery.num_steps": 2,
    "recovery.batch_size": 3,  # half of the set
    "trajectory.representation.current_start_epoch": 2,
    "trajectory.representation.max_start_epoch": 4,
    "gradient_matching.num_networks": 2,
    "gradient_matching.image_steps": 2,
    "gradient_matching.training_epochs": 2,
    "gradient_matching.training_batch_size": 4,
    "gradient_matching.batch_size": 4,
    "distribution_matching.num_iterations": 4,
    "distribution_matching.batch_size": 4,
    "distribution_matching.queue_size": 3,
    "distribution_matching.initial_networks": 2,
    "distribution_matching.queue_interval": 2,
    "distribution_matching.training_steps": 2,
    "distribution_matching.training_batch_size": 4,
    "dream.num_networks": 2,
    "dream.inner_steps": 2,
    "dream.cluster_interval": 1,
    "dream.num_clusters": 3,
    "dream.cluster_steps": 3,
    "dream.augment_always": "color",
    "dream.training_images": 8,
    "dream.training_batch_size": 4,
    "kernel.first.num_iterations": 2,
    "kernel.second.num_iterations": 2,
    "kernel.batch_size": 7,
    "kernel.real_augmentation": "crop",
}


def jitter(key, images):
    """A cheap augmentation with one random number per image."""
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), images.dtype, 0.5)


def jitter_alike(key, images):
    """`jitter` with one number for all images of a call."""
    return images * jax.random.uniform(key, (), images.dtype, 0.5)


def make_task(*, side=8, width=4, augment=jitter, class_counts=CLASS_COUNTS, log=None) -> Task:
    """A task on noise.

    Args:
      side: pixels of a row, one channel.
      width: of the ConvNet, one block deep.
      augment: (key, images) -> images.
      class_counts: images of each class.
      log: list to which the names (kind, expert, epoch) of all snapshots read are added.
    """
    rng = np.random.default_rng(0)
    network = nets.build(
        "convnet",
        image_shape=(side, side, 1),
        num_classes=len(class_counts),
        width=width,
        depth=1,
    )
    init = jax.jit(network.init)
    teachers = make_teachers(network, side, len(class_counts))

    @functools.cache
    def ends(expert):
        return tuple(
            jax.tree.map(np.asarray, init(jax.random.key(2 * expert + i))) for i in range(2)
        )

    def snapshot(kind, expert, epoch):
        """A path from one random network to another; the classifier's moves its last layer."""
        if log is not None:
            log.append((kind, expert, epoch))
        start, end = ends(expert)
        share = 0.1 * (epoch if epoch >= 0 else 9)
        path = jax.tree.map(lambda a, b: (1 - share) * a + share * b, start, end)
        return path if kind == "representation" else {**start, "classifier": path["classifier"]}

    return Task(
        network=network,
        augment=augment,
        augment_siamese=jitter_alike,
        images=rng.normal(size=(sum(class_counts), side, side, 1)).astype(np.float32),
        labels=np.repeat(np.arange(len(class_counts)), class_counts).astype(np.int32),
        class_counts=tuple(class_counts),
        stream=functools.partial(prng.stream_key, 0),
        snapshot=snapshot,
        num_experts=2,
        input_range=(np.full(1, -4.0, np.float32), np.full(1, 4.0, np.float32)),
        teachers=teachers.__getitem__,
        networks=lambda kind: tuple(teacher.network for teacher in teachers[kind]),
        preprocessing=normalize.Preprocessing(
            mean=np.full(1, 0.5, np.float32), std=np.full(1, 0.2, np.float32)
        ),
    )


def make_teachers(network, side: int, num_classes: int) -> dict[str, tuple[Teacher, ...]]:
    """One random network of each kind; an observer is a ConvNet with batch norm."""
    observer = nets.build(
        "convnet_bn", image_shape=(side, side, 1), num_classes=num_classes, width=3, depth=1
    )

    def make(network):
        made = jax.jit(network.init)(jax.random.key(7))
        return (Teacher(network=network, params=jax.tree.map(np.asarray, made)),)

    return {"teacher": make(network), "observer": make(observer)}


def make_config(name: str, **fields):
    """The base config with the preset `name`, tiny; "__" in a field stands for the dot."""
    config = configs.base_config()
    configs.use_preset(config, name)
    more = {key.replace("__", "."): value for key, value in fields.items()}
    config.update_from_flattened_dict({**TINY, **more})
    if config.trajectory.skip_threshold == 1.0:  # experts of noise cannot be followed that closely
        config.trajectory.skip_threshold = 10.0
    return config


def make_method(name: str, task: Task, **fields) -> Method:
    """The method that the pipeline would build from `make_config(name, **fields)`."""
    config, section = make_config(name, **fields), PRESETS[name].section
    build = families.find_builder(section)
    return build(task, ipc=config.distill.ipc, **config[section].to_dict())
