# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Exact and two-pass gradients
#
# Trajectory matching trains a student on the synthetic images for some steps and asks how these
# images should change so that the student ends nearer to an expert. That is the gradient of the
# *matching loss* with respect to the images. This package takes it exactly. Published programs use
# a cheaper estimate, the *two-pass* gradient (TESLA, Cui et al., ICML 2023). This notebook compares
# them on the handwritten digits: which one is right, how far apart they are, and whether it
# matters. It takes well below a minute on two cores.
#
# In a fresh kernel: `%pip install 'ltdd_jax[notebooks]'`, or `%pip install -e '.[notebooks]'` in a
# checkout. The script `05_exact_and_two_pass.py` is the source of this notebook (jupytext).

# %%
import functools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import ltdd_jax
from ltdd_jax import losses
from ltdd_jax.data import normalize, sources

BLUE, ORANGE = "#0072B2", "#E69F00"  # Okabe and Ito

train = sources.load_source("digits", "train")  # all of it: the long tail is not the subject here
test = sources.load_source("digits", "test")
EPOCHS, NUM_EXPERTS = 10, 2
experts = ltdd_jax.train_experts(
    train.images,
    train.labels,
    method="mtt",
    test_images=test.images,
    test_labels=test.labels,
    workdir="runs/notebook_gradients",
    settings={
        "net.width": 16,
        "net.depth": 2,
        "experts.num_experts": NUM_EXPERTS,
        "experts.representation.num_epochs": EPOCHS,
        "experts.representation.batch_size": 64,
        "trajectory.representation.current_start_epoch": 4,  # what would be matched: not here
        "trajectory.representation.max_start_epoch": 8,
        "trajectory.classifier.loss_weight": 0.0,  # no classifier experts
    },
)

# %% [markdown]
# ## The student, and the one line in which the two differ
#
# Every step of the student moves its parameters against their gradient on the synthetic images. An
# image acts twice: it enters the gradient of a step directly, and it has changed the parameters
# that later steps start from. The exact gradient counts both. The two-pass gradient leaves out the
# second, as if the parameters of each step did not depend on the images: one `stop_gradient`.
#
# Here JAX differentiates the loop, which keeps all of it in memory. The package gets the same
# numbers from a reverse pass of its own that keeps only the parameters of every step; its setting
# is `trajectory.gradient`.

# %%
MOST_STEPS = 40
preprocessing = normalize.fit(train.images)
rows = np.concatenate([np.flatnonzero(train.labels == k)[:2] for k in range(10)])
real = jnp.asarray(normalize.apply(preprocessing, train.images[rows]))
labels = jnp.asarray(train.labels[rows])


def inner_loss(params, images):
    """What the student minimises."""
    return jnp.mean(losses.cross_entropy(experts.network.apply(params, images), labels))


def matching_loss(images, start, target, rates, two_pass):
    """Squared distance of the student's end from the target, in units of the expert's way."""

    def step(params, rate):
        seen = jax.lax.stop_gradient(params) if two_pass else params  # the difference
        gradient = jax.grad(inner_loss)(seen, images)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient), None

    def distance(a, b):
        return sum(
            jnp.sum((x - y) ** 2) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
        )

    end, _ = jax.lax.scan(step, start, rates)
    return distance(end, target) / distance(start, target)


differentiate = jax.jit(jax.value_and_grad(matching_loss), static_argnums=4)

# %% [markdown]
# ## Which one is right?
#
# Both are asked the same question: how steeply does the matching loss change if the images move a
# little in a given direction? The answer can be had without any derivative, from the loss a little
# ahead and a little behind (a *finite difference*). As the direction we take the one in which the
# two-pass gradient would move the images. "A little" has to be very little, and is computed in
# double precision: wherever a ReLU switches on or off the student's steps jump, and over longer
# ways the loss has jumps that no gradient can see.
#
# The exact gradient gives the measured slope for every number of steps. For a single step the two
# are the same. The more steps the student takes, the steeper the two-pass gradient believes the
# slope to be, and the right panel shows that it slowly turns away.

# %%
RATE, MOVE = 0.02, 1e-8
start, target = experts.snapshot("representation", 0, 1), experts.snapshot("representation", 0, 3)
step_counts = (1, 2, 5, 10, 20, 30, 40)
found = []
with jax.enable_x64(True):
    images, start, target = jax.tree.map(np.float64, (real, start, target))
    for count in step_counts:
        rates = RATE * np.float64(np.arange(MOST_STEPS) < count)  # at a rate of 0 nothing moves
        _, exact = differentiate(images, start, target, rates, False)
        _, estimate = differentiate(images, start, target, rates, True)
        direction = estimate / jnp.linalg.norm(estimate)
        ahead, behind = (
            differentiate(images + way * direction, start, target, rates, False)[0]
            for way in (MOVE, -MOVE)
        )
        along_exact, along_estimate = jnp.vdot(exact, direction), jnp.vdot(estimate, direction)
        cosine = along_exact / jnp.linalg.norm(exact)
        slopes = (ahead - behind) / (2 * MOVE), along_exact, along_estimate, cosine
        found.append([float(x) for x in slopes])
measured, by_exact, by_estimate, cosines = np.array(found).T
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
axes[0].plot(step_counts, by_exact, "-", color=BLUE, label="exact gradient")
axes[0].plot(step_counts, by_estimate, "s--", color=ORANGE, label="two-pass gradient")
axes[0].plot(step_counts, measured, "k+", ms=11, label="finite difference")
axes[0].set(xlabel="steps of the student", ylabel="slope of the matching loss, per unit")
axes[0].legend()
axes[1].plot(step_counts, cosines, "o-", color=BLUE)
axes[1].set(xlabel="steps of the student", ylabel="cosine of the two gradients", ylim=(0.8, 1.02))
plt.show()
for name, slopes in (("exact", by_exact), ("two-pass", by_estimate)):
    errors = 100 * np.abs(slopes / measured - 1)
    shown = ", ".join(f"{error:.2g} %" for error in errors)
    print(f"error of the {name} slope by number of steps: {shown}")

# %% [markdown]
# ## Does it matter?
#
# Gradient descent on the twenty images, once with each gradient: same first images, same draws of
# expert and start epoch, the student takes 20 steps. The learning rate of the images is tried at
# several values, since a gradient of another length could do better at another one. Curves are
# means over 20 iterations, as the loss depends on the epoch that was drawn.
#
# Here it hardly matters: which curve is lower changes with the learning rate, and the gradients of
# a student of 20 small steps point nearly the same way, as was seen above. The exact gradient is
# what this package takes by default because it is the right one, also where students take more or
# larger steps.

# %%
STEPS, ITERATIONS, MEAN_OVER = 20, 200, 20
paths = [
    [experts.snapshot("representation", e, t) for t in range(EPOCHS + 1)]
    for e in range(NUM_EXPERTS)
]
rng = np.random.default_rng(0)
draws = [(rng.integers(NUM_EXPERTS), rng.integers(EPOCHS - 1)) for _ in range(ITERATIONS)]
starts, targets = (
    jax.tree.map(lambda *x: jnp.stack(x), *[paths[e][t + later] for e, t in draws])
    for later in (0, 2)
)


@functools.partial(jax.jit, static_argnums=1)
def descend(image_rate, two_pass):
    """Matching loss of every iteration."""

    def iterate(carry, pair):
        images, velocity = carry
        rates = jnp.full(STEPS, RATE)
        loss, gradient = jax.value_and_grad(matching_loss)(images, *pair, rates, two_pass)
        velocity = 0.5 * velocity + gradient
        return (images - image_rate * velocity, velocity), loss

    return jax.lax.scan(iterate, (real, jnp.zeros_like(real)), (starts, targets))[1]


window = np.full(MEAN_OVER, 1 / MEAN_OVER)
after = np.arange(ITERATIONS - MEAN_OVER + 1) + MEAN_OVER
image_rates = (1.0, 3.0, 10.0)
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained", sharey=True)
last = {}
for axis, image_rate in zip(axes, image_rates, strict=True):
    for name, two_pass, color, style in (
        ("exact gradient", False, BLUE, "-"),
        ("two-pass gradient", True, ORANGE, "--"),
    ):
        curve = np.convolve(descend(image_rate, two_pass), window, "valid")
        axis.plot(after, curve, style, color=color, label=name)
        last[name, image_rate] = curve[-1]
    axis.set(title=f"learning rate {image_rate:g}", xlabel="iteration")
axes[0].set_ylabel("matching loss (1 is no progress)")
axes[0].legend()
plt.show()
for (name, image_rate), value in last.items():
    print(f"learning rate {image_rate:4g}, {name:17}: {value:.3f} at the end")
