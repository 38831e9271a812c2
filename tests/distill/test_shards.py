"""Shards of a student against the devices of the published program, one by one in Python loops.

In float64; the network and the cross-entropies are shared, nothing of the unroll is.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import config as configs
from ltdd_jax import losses, nets
from ltdd_jax.data import batches as batching
from ltdd_jax.distill import matching, step
from ltdd_jax.types import SyntheticSet
from tests.distill import tasks
from tests.test_presets import load_config

NUM_ROWS, NUM_CLASSES, STEPS = 7, 3, 2
CLASS_WEIGHTS = (0.6, 0.3, 0.1)
# What moves, shards, rows per batch: all rows (7 = 3 + 3 + 1); chunks of 2 (= 1 + 1) and then 5
# (= 3 + 2); fewer rows than shards.
CASES = {
    "all_rows": ("all", 3, 100),
    "chunks": ("all", 2, 5),
    "chunks_of_classifier": ("classifier", 2, 5),
    "few_rows": ("classifier", 4, 3),
}


def leave_out(*slow):
    """The cases, those of `slow` for runs that have the time: compiling a large graph takes it."""
    mark = pytest.mark.slow
    return [pytest.param(case, marks=mark) if case in slow else case for case in CASES]


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


@functools.cache
def make_network():
    with jax.enable_x64(False):
        return nets.build(
            "convnet", image_shape=(4, 4, 1), num_classes=NUM_CLASSES, width=2, depth=1
        )


@functools.cache
def make_pair(part):
    with jax.enable_x64(False):
        trees = [make_network().init(jax.random.key(seed)) for seed in range(2)]
        trees = [jax.tree.map(np.asarray, tree) for tree in trees]
    start, target = (jax.tree.map(lambda x: x.astype(np.float64), tree) for tree in trees)
    return step.ExpertPair(start=start, target=matching.select_part(target, part))


def make_phase(moved, batch_size, num_shards):
    return step.Phase(
        name="phase",
        moved=moved,
        matched="backbone" if moved == "all" else "classifier",
        student_steps=STEPS,
        batch_size=batch_size,
        loss_weight=1.0,
        class_weights=CLASS_WEIGHTS if moved == "all" else None,
        num_shards=num_shards,
    )


def make_set():
    rng = np.random.default_rng(0)
    return SyntheticSet(
        images=jnp.asarray(rng.normal(size=(NUM_ROWS, 4, 4, 1))),
        label_logits=jnp.asarray(rng.normal(size=(NUM_ROWS, NUM_CLASSES))),
        step_size=jnp.asarray(0.4),
    )


def make_draws():
    return jax.random.split(jax.random.key(3), STEPS)


def draw_batches(batch_size):
    return batching.draw_chunks(jax.random.key(2), NUM_ROWS, batch_size, STEPS)


@functools.cache
def compiled(moved, batch_size, num_shards, gradient):
    """synthetic set -> (loss, gradients) through `phase_loss`."""
    phase = make_phase(moved, batch_size, num_shards)
    pair, batches = make_pair(phase.matched), draw_batches(batch_size)

    def loss(synthetic, draws):
        return step.phase_loss(
            make_network(), phase, tasks.jitter, synthetic, pair, batches, draws, gradient=gradient
        )

    return jax.jit(jax.value_and_grad(loss))


def run(*case):
    return compiled(*case)(make_set(), make_draws())


class Devices:
    """Steps of n devices as `method` describes them; every number with a loop over devices."""

    def __init__(self, moved, batch_size, num_shards):
        self.moved, self.num_devices = moved, num_shards
        self.pair = make_pair("backbone" if moved == "all" else "classifier")
        batches = draw_batches(batch_size)
        self.rows = [
            np.asarray(rows)[np.asarray(weights) > 0]
            for rows, weights in zip(batches.indices, batches.weights, strict=True)
        ]
        self.padded = np.asarray(batches.indices)
        self.factors = [
            jax.random.uniform(key, (self.padded.shape[1], 1, 1, 1), jnp.float64, 0.5)
            for key in make_draws()
        ]

    def start(self):
        """Parameters that move, before the first step."""
        if self.moved == "all":
            return self.pair.start
        return {"classifier": self.pair.start["classifier"]}

    def part_of(self, params):
        """What is matched: the backbone, or the classifier."""
        if self.moved == "all":
            return {name: leaf for name, leaf in params.items() if name != "classifier"}
        return {"classifier": params["classifier"]}

    def gradient(self, device, index, theta, images, labels):
        """Of the mean loss of a batch with respect to the parameters of one device.

        Only its own rows, consecutive ones of the batch, depend on them.
        """
        rows = self.rows[index]
        size = -(-len(rows) // self.num_devices)
        begin = device * size
        own = rows[begin : begin + size]
        factors = self.factors[index][begin : begin + len(own)]

        def share_of_mean(theta):
            params = theta if self.moved == "all" else {**self.pair.start, **theta}
            logits = make_network().apply(params, images[own] * factors)
            if self.moved == "all":
                weights = jnp.asarray(CLASS_WEIGHTS)
                values = losses.weighted_soft_cross_entropy(logits, labels[own], weights)
            else:
                values = losses.soft_cross_entropy(logits, labels[own])
            return values.sum() / len(rows)

        if not len(own):
            return jax.tree.map(jnp.zeros_like, theta)
        return jax.grad(share_of_mean)(theta)

    def unroll(self, images, labels, step_size):
        """(parameters of every device before every step, sum of the gradients of every device)."""
        thetas, sums = [], []
        for device in range(self.num_devices):
            theta, path = self.start(), []
            total = jax.tree.map(jnp.zeros_like, theta)
            for index in range(STEPS):
                path.append(theta)
                gradient = self.gradient(device, index, theta, images, labels)
                theta = jax.tree.map(lambda t, g: t - step_size * g, theta, gradient)
                total = jax.tree.map(jnp.add, total, gradient)
            thetas.append(path)
            sums.append(total)
        return thetas, sums

    def distance(self):
        """D."""
        return dot(*[difference(self.part_of(self.pair.start), self.pair.target)] * 2)

    def loss(self, images, labels, step_size):
        """Of the start, moved by the mean of the devices' displacements."""
        _, sums = self.unroll(images, labels, step_size)
        mean = jax.tree.map(lambda *g: sum(g) / self.num_devices, *sums)
        end = jax.tree.map(lambda t, g: t - step_size * g, self.start(), mean)
        rest = difference(self.part_of(end), self.pair.target)
        return dot(rest, rest) / self.distance()

    def two_pass(self, images, labels, step_size):
        """(image gradient, label gradient, step size gradient), as the two passes give them."""
        thetas, sums = self.unroll(images, labels, step_size)
        target, start = self.pair.target, self.part_of(self.start())
        scale = 2 / self.distance()
        by_data = jax.tree.map(jnp.zeros_like, (images, labels))
        for device in range(self.num_devices):
            u = jax.tree.map(
                lambda t, s, g: scale * (step_size * (t - s) + step_size**2 * g),
                target, start, self.part_of(sums[device]),
            )  # fmt: skip
            for index in range(STEPS):

                def product(images, labels, device=device, index=index, u=u):
                    theta = thetas[device][index]
                    gradient = self.gradient(device, index, theta, images, labels)
                    return dot(u, self.part_of(gradient)) / self.num_devices

                part = jax.grad(product, argnums=(0, 1))(images, labels)
                by_data = jax.tree.map(jnp.add, by_data, part)
        mean = jax.tree.map(lambda *g: sum(g) / self.num_devices, *sums)
        mean = self.part_of(mean)
        rest = jax.tree.map(lambda s, g, t: s - step_size * g - t, start, mean, target)
        return *by_data, -scale * dot(rest, mean)


def difference(a, b):
    return jax.tree.map(lambda x, y: x - y, a, b)


def dot(a, b):
    products = jax.tree.map(lambda x, y: (x * y).sum(), a, b)
    return sum(jax.tree.leaves(products))


def assert_close(found, expected, rtol=1e-6):
    """Relative L2 error of each of the three gradients; weights of rows are float32."""
    for x, y in zip(found, expected, strict=True):
        error = np.linalg.norm(np.asarray(x - y)) / np.linalg.norm(np.asarray(y))
        assert error < rtol, error


def parts(tree):
    return tree.images, tree.label_logits, tree.step_size


@pytest.mark.parametrize("case", leave_out("all_rows", "chunks"))
def test_exact_gradient_equals_autodiff_through_the_devices(case):
    """Breaks when a shard sees others' rows, divides by its own number of them, or the sum
    instead of the mean displacement counts.
    """
    moved, num_shards, batch_size = CASES[case]
    devices = Devices(moved, batch_size, num_shards)
    expected, grads = jax.jit(jax.value_and_grad(devices.loss, argnums=(0, 1, 2)))(
        *parts(make_set())
    )
    loss, found = run(moved, batch_size, num_shards, "exact")
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert_close(parts(found), grads)


@pytest.mark.parametrize("case", leave_out("all_rows", "chunks", "chunks_of_classifier"))
def test_two_pass_gradient_equals_the_two_passes_of_the_devices(case):
    """Breaks when all shards share one direction u, inner products are summed, or the step size
    does not learn from the mean displacement.
    """
    moved, num_shards, batch_size = CASES[case]
    devices = Devices(moved, batch_size, num_shards)
    expected = jax.jit(devices.two_pass)(*parts(make_set()))
    loss, found = run(moved, batch_size, num_shards, "two_pass")
    np.testing.assert_allclose(loss, devices.loss(*parts(make_set())), rtol=1e-6)
    assert_close(parts(found), expected)


def test_exact_gradient_equals_finite_differences():
    case, size = ("all", 5, 2, "exact"), 1e-6
    start, (_, grads) = make_set(), run("all", 5, 2, "exact")
    rng = np.random.default_rng(1)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape), start)
    ends = []
    for sign in (size, -size):
        moved = jax.tree.map(lambda x, d, s=sign: x + s * d, start, direction)
        ends.append(float(compiled(*case)(moved, make_draws())[0]))
    slope = dot(grads, direction)
    np.testing.assert_allclose((ends[0] - ends[1]) / (2 * size), slope, rtol=1e-6)


@pytest.mark.parametrize("gradient", ["exact", "two_pass"])
def test_one_shard_is_the_student_on_the_whole_batch(gradient):
    """The path of several shards, taken with one; breaks when it computes something else."""
    phase = make_phase("all", 5, 1)
    pair, batches = make_pair("backbone"), draw_batches(5)
    inner_loss = step.make_inner_loss(make_network(), phase, tasks.jitter)
    loss, grads = run("all", 5, 1, gradient)

    def through_shards(synthetic, draws):
        def measure(final):
            return matching.matching_loss(
                matching.select_part(final, "backbone"),
                matching.select_part(pair.start, "backbone"),
                pair.target,
            )

        def unroll(shards, step_size):
            one = jax.tree.map(lambda x: x[0], shards)
            end = step.student.unroll(
                inner_loss, one, {}, (synthetic.images, synthetic.label_logits), step_size,
                batches, draws, gradient=gradient,
            )  # fmt: skip
            return jax.tree.map(lambda x: x[None], end)

        shards = jax.tree.map(lambda x: jnp.asarray(x)[None], pair.start)
        return step._shards_loss(measure, unroll, pair.start, shards, synthetic.step_size, gradient)

    value, expected = jax.jit(jax.value_and_grad(through_shards))(make_set(), make_draws())
    np.testing.assert_allclose(loss, value, rtol=1e-10)
    assert_close(parts(grads), parts(expected), 1e-9)


@pytest.mark.slow
def test_shards_shorten_the_path():
    """n shards displace a student by about 1/n; breaks when each takes a whole step."""
    displacement = []
    for num_shards in (1, 4):
        devices = Devices("all", 100, num_shards)
        _, sums = devices.unroll(*parts(make_set()))
        mean = jax.tree.map(lambda *g, n=num_shards: sum(g) / n, *sums)
        displacement.append(float(dot(mean, mean)) ** 0.5)
    assert displacement[1] < 0.5 * displacement[0]


GPUS = {
    "cifar10_lt": {
        (10, 10): 2, (10, 20): 6, (10, 50): 6, (50, 10): 4, (50, 20): 5, (50, 50): 6,
        (100, 10): 4, (100, 20): 5, (100, 50): 6, (200, 10): 6, (200, 20): 5, (200, 50): 6,
    },
    "cifar100_lt": {
        (10, 10): 4, (10, 20): 6, (10, 50): 2, (20, 10): 6, (20, 20): 6, (20, 50): 6,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", GPUS)
def test_published_numbers_of_shards(name):
    """1 unless asked for; breaks when a cell has another number than its released settings."""
    for (factor, ipc), gpus in GPUS[name].items():
        cell = f"if{factor}_ipc{ipc}"
        assert load_config(name, cell).trajectory.num_shards == 1
        config = load_config(name, f"{cell},as_published")
        assert config.trajectory.num_shards == gpus
        configs.validate(config)
