"""The synthetic set before the first iteration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.distill import initialize
from ltdd_jax.pipeline.pairs import Experts
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.runtime import prng
from ltdd_jax.types import SyntheticSet


def initial_set(config: ConfigDict, problem: Problem, experts: Experts) -> SyntheticSet:
    """Synthetic set before the first iteration (DATM; method of arXiv 2408.14506, section 4)."""
    ipc, num_classes = config.distill.ipc, problem.num_classes
    order_key, noise_key, expert_key = jax.random.split(
        prng.stream_key(config.seed, "initialize"), 3
    )
    class_rows = [np.flatnonzero(problem.train.labels == k) for k in range(num_classes)]
    orders = initialize.permute_classes(order_key, class_rows)
    apply = jax.jit(problem.network.apply)
    labels = np.repeat(np.arange(num_classes), ipc)
    logits = functools.partial(_logits_in_blocks, apply)
    if config.distill.initial_images == "correct":
        params = experts.snapshot("classifier", 0, -1)

        def predict(rows):
            return np.argmax(logits(params, problem.train_images[rows]), axis=1)

        rows = initialize.select_correct(orders, ipc, predict)
    elif config.distill.initial_images == "real":
        rows = initialize.select_real(orders, ipc)
    else:
        rows = np.full(num_classes * ipc, initialize.NOISE)
    images = initialize.fill_images(noise_key, rows, problem.train_images)
    if config.distill.initial_images == "correct":
        of_experts = (
            logits(experts.snapshot("classifier", expert, -1), images)
            for expert in range(config.experts.num_experts)
        )
        label_logits = initialize.average_correct_logits(of_experts, labels)
    else:
        one = int(jax.random.randint(expert_key, (), 0, config.experts.num_experts))
        label_logits = logits(experts.snapshot("classifier", one, -1), images)
    return SyntheticSet(
        images=jnp.asarray(images),
        label_logits=jnp.asarray(label_logits),
        step_size=jnp.float32(config.distill.initial_step_size),
    )


def _logits_in_blocks(apply, params, images, block=256):
    padded = -(-len(images) // block) * block
    filled = np.concatenate([images, np.repeat(images[-1:], padded - len(images), axis=0)])
    parts = [apply(params, filled[i : i + block]) for i in range(0, padded, block)]
    return np.concatenate([np.asarray(part) for part in parts])[: len(images)]
