"""The smallest outer iteration: a network, the paper's two phases, pairs and a set, all random."""

import jax
import jax.numpy as jnp

from ltdd_jax import nets
from ltdd_jax.distill import matching, state, step
from ltdd_jax.types import SyntheticSet

NUM_CLASSES, NUM_IMAGES = 3, 6
RATES = dict(
    image_lr=0.5,
    image_momentum=0.5,
    label_lr=0.3,
    label_momentum=0.9,
    step_size_lr=1e-3,
    step_size_momentum=0.5,
)


def make_network():
    """One block, so that a program compiles in a moment."""
    return nets.build("convnet", image_shape=(4, 4, 1), num_classes=NUM_CLASSES, width=3, depth=1)


def make_phases(num_steps=2, batch_size=100, loss_weights=(0.5, 2.0)):
    """The paper's two phases; full batches unless said otherwise."""
    common = dict(student_steps=num_steps, batch_size=batch_size)
    return (
        step.Phase(
            "representation",
            "all",
            "backbone",
            loss_weight=loss_weights[0],
            class_weights=(0.6, 0.3, 0.1),
            **common,
        ),
        step.Phase("classifier", "classifier", "classifier", loss_weight=loss_weights[1], **common),
    )


def make_pairs(seed=0):
    """Random snapshots, one pair for each phase."""
    network = make_network()
    pairs = []
    for phase, key in zip(make_phases(), jax.random.split(jax.random.key(seed)), strict=True):
        start, target = (network.init(k) for k in jax.random.split(key))
        pairs.append(
            step.ExpertPair(start=start, target=matching.select_part(target, phase.matched))
        )
    return tuple(pairs)


def make_set(seed=0):
    """A random set of two images a class."""
    keys = jax.random.split(jax.random.key(seed))
    return SyntheticSet(
        images=jax.random.normal(keys[0], (NUM_IMAGES, 4, 4, 1)),
        label_logits=jax.random.normal(keys[1], (NUM_IMAGES, NUM_CLASSES)),
        step_size=jnp.float32(0.3),
    )


def jitter(key, images):
    """A cheap augmentation with one random number per image."""
    return images * jax.random.uniform(key, (len(images), 1, 1, 1), minval=0.5)


def make_step(phases, augment=jitter, **options):
    """The step and `init(seed) -> state`."""
    tx = state.make_outer_optimizer(**RATES)
    made = step.make_distill_step(make_network(), phases, tx, augment, **options)
    return made, lambda seed=0: state.init_state(jax.random.key(seed), make_set(), tx)
