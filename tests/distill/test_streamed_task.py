"""Every method on a set whose images stay on disk does what it does in memory."""

import dataclasses

import jax
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax.data import disk_images, normalize, request, streamed
from tests.distill import tasks


@pytest.mark.parametrize(
    "name",
    [
        "random",
        *(pytest.param(m, marks=pytest.mark.slow) for m in configs.METHODS if m != "random"),
    ],
)
def test_a_step_on_images_on_disk(name, tmp_path):
    """Breaks when a method wants all images at once, or takes rows in a way the disk has not."""
    in_memory = tasks.make_task()
    pixels = np.random.default_rng(0).integers(0, 256, in_memory.images.shape).astype(np.uint8)
    on_disk = disk_images.write(
        request.Request(cache=str(tmp_path)),
        {},
        len(pixels),
        pixels.shape[1:],
        lambda start, end: pixels[start:end],
    )
    pre = in_memory.preprocessing
    found = []
    for images in (normalize.apply(pre, pixels), streamed.preprocess(pre, on_disk)):
        task = dataclasses.replace(in_memory, images=images)
        method = tasks.make_method(name, task)
        start = method.start()
        if method.num_iterations == 0:
            found.append(start)
            continue
        constants = streamed.for_programs(dict(method.constants()))
        state = method.init(jax.random.key(0), start)
        state, _ = jax.jit(method.step)(state, method.read(0), **constants)
        found.append(method.result(state))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), atol=1e-4)
