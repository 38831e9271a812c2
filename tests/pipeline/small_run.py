"""A run without pictures on disk, networks or training: for tests of what a stage decides."""

import jax.numpy as jnp
import numpy as np

from ltdd_jax.data import normalize, sources
from ltdd_jax.pipeline import artefacts, claims
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.types import SyntheticSet
from tests.pipeline import tiny_config

COUNTS, IPC = (30, 10, 5), 2


def make_run(workdir, network=None, fingerprint="f", **fields) -> Run:
    """A run on noise of three classes; "__" in a field of the config stands for the dot."""
    config = tiny_config.get_config()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    generator = np.random.default_rng(0)
    train, test = (
        sources.ImageSet(
            generator.integers(0, 256, (sum(counts), 2, 2, 1)).astype(np.uint8),
            np.repeat(np.arange(3), counts).astype(np.int32),
            ("a", "b", "c"),
        )
        for counts in (COUNTS, (2, 2, 2))
    )
    preprocessing = normalize.fit(train.images, whiten=False)
    problem = Problem(
        train=train,
        test=test,
        fingerprint=fingerprint,
        preprocessing=preprocessing,
        train_images=normalize.apply(preprocessing, train.images),
        test_images=normalize.apply(preprocessing, test.images),
        network=network,
        augment=lambda key, images: images,
    )
    return Run(config, problem, Workspace(config, str(workdir)), None)


def write_sets(run: Run, partition: int = 1) -> dict[str, SyntheticSet]:
    """Writes a first, a kept and a last set, each with its own images and step size."""
    claims.claim_set(run.workspace, {})
    written = {}
    for place, name in enumerate((artefacts.INITIAL, artefacts.name_kept(3), artefacts.FINAL), 1):
        generator = np.random.default_rng(place)
        written[name] = SyntheticSet(
            images=jnp.float32(generator.normal(size=(3 * IPC, 2, 2, 1))),
            label_logits=jnp.float32(generator.normal(size=(3 * IPC, 3))),
            step_size=jnp.float32(0.01 * place),
        )
        labels = np.repeat(np.arange(3), IPC).astype(np.int32)
        artefacts.write_set(run, written[name], labels, name, partition)
    return written
