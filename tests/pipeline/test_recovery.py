"""RLDD through the pipeline: the set that comes out is made with the networks on disk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax import pipeline
from ltdd_jax.data import normalize
from ltdd_jax.pipeline import artefacts, teachers
from tests.pipeline import tiny_config, wiring

RATE = 0.05
SMALL = {
    "teacher.recipe": "plain",
    "teacher.num_epochs": 2,
    "teacher.learning_rate": 0.2,
    "observer.nets": ("convnet_bn",),
    "observer.recipe": "plain",
    "observer.num_epochs": 2,
    "observer.learning_rate": 0.2,
    # Whole pictures, one step, no statistics: who was asked is all that shows.
    "recovery.min_area": 1.0,
    "recovery.crops_per_image": 1,
    "recovery.view_min_area": 1.0,
    "recovery.flip": False,
    "recovery.num_steps": 1,
    "recovery.image_lr": RATE,
    "recovery.statistics_weight": 0.0,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The record of a run of the stages `experts` and `distill`."""
    workdir, config = str(tmp_path_factory.mktemp("rldd")), tiny_config.get_config()
    configs.use_preset(config, "rldd")
    config.update_from_flattened_dict(SMALL)
    with wiring.quick_compilation():
        for stage in ("experts", "distill"):
            pipeline.run(config, workdir, stage)
        yield pipeline.open_run(config, workdir)


def cross_entropy(network, params, images, labels):
    logs = jax.nn.log_softmax(network.apply(params, images))
    return -logs[np.arange(len(labels)), labels]


def test_first_images_are_those_the_teacher_on_disk_knows_best(made):
    """Breaks when crops are chosen by the observer, a fresh network or one without its weights."""
    (teacher,) = teachers.read_teachers(made, "teacher")
    problem = made.problem
    images, labels = problem.train_images, problem.train.labels
    score = jax.jit(functools.partial(cross_entropy, teacher.network))

    def choose(params):
        values = score(params, images, labels)
        rows = [np.flatnonzero(labels == k) for k in range(problem.num_classes)]
        return np.array([own[np.argmin(np.asarray(values)[own])] for own in rows])

    best = choose(teacher.params)
    found = artefacts.read_set(made, artefacts.INITIAL).synthetic.images
    np.testing.assert_allclose(found, images[best], atol=1e-3)
    assert (best != choose(teacher.network.init(jax.random.key(0)))).any()


def test_images_follow_the_observer_on_disk(made):
    """One step of Adam goes by the rate against the sign of its gradient, to whole pixels."""
    (observer,) = teachers.read_teachers(made, "observer")
    first, last = (artefacts.read_set(made, name) for name in (artefacts.INITIAL, artefacts.FINAL))
    images = jnp.asarray(first.synthetic.images)

    def loss(images):
        return cross_entropy(observer.network, observer.params, images, first.labels).mean()

    sign = np.sign(jax.jit(jax.grad(loss))(images))
    expected = normalize.invert(made.problem.preprocessing, np.asarray(images) - RATE * sign)
    pixels = normalize.invert(made.problem.preprocessing, np.asarray(last.synthetic.images))
    assert np.mean(pixels == expected) > 0.99
    before = normalize.invert(made.problem.preprocessing, np.asarray(images))
    assert np.mean(pixels == before) < 0.9
