"""The compiled steps of a run as functions and shapes: to lower or compile them, without any data.

Sizes are arguments; hyper-parameters that change no shape are the published ones. What the backend
decides (branches, networks at once, devices) is asked while a program is built and traced, so both
belong inside one `ltdd_jax.backend.assume`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from ltdd_jax import backend, nets, training
from ltdd_jax.data import augment as augmentation
from ltdd_jax.data import normalize
from ltdd_jax.distill import matching
from ltdd_jax.distill import state as states
from ltdd_jax.distill import step as steps
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.experts import train as experts
from ltdd_jax.runtime import mesh as meshes
from ltdd_jax.types import Batch, SyntheticSet

STRATEGY = "color_crop_cutout_flip_scale_rotate"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Shapes of a run; the defaults are those of the CIFAR-10-LT cells, imbalance 100, IPC 10.

    Attributes:
      width: channels of the ConvNet.
      depth: its blocks.
      side: pixels of the square pictures.
      class_counts: training images of each class.
      ipc: synthetic images per class.
      distill_batch: synthetic images per student step, all if there are fewer.
      student_steps: of each phase.
      iterations: outer iterations of one call; 0 is what a run chooses.
      expert_batch: of the experts.
      group: experts trained together, over all devices; 0 is what a run chooses.
      seeds: evaluation networks.
      evaluation_epochs: of one call.
    """

    width: int = 128
    depth: int = 3
    side: int = 32
    class_counts: tuple[int, ...] = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
    ipc: int = 10
    distill_batch: int = 500
    student_steps: int = 80
    iterations: int = 0
    expert_batch: int = 256
    group: int = 0
    seeds: int = 5
    evaluation_epochs: int = 26

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.side, self.side, 3

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)


@dataclasses.dataclass(frozen=True)
class Program:
    """A function to be compiled.

    Attributes:
      function: pure.
      arguments: trees of `jax.ShapeDtypeStruct`.
      split: for each argument whether its leading axis is spread over the mesh.
      mesh: devices.
      donated: index of the argument whose memory the result may take.
    """

    function: Callable
    arguments: tuple[Any, ...]
    split: tuple[bool, ...]
    mesh: Mesh
    donated: tuple[int, ...] = ()

    def lower(self, **options) -> jax.stages.Lowered:
        """Traces and lowers for the mesh; `options` as for `jax.stages.Traced.lower`."""
        places = [self._place(tree, s) for tree, s in zip(self.arguments, self.split, strict=True)]
        jitted = jax.jit(self.function, donate_argnums=self.donated)
        return jitted.trace(*places).lower(**options)

    def _place(self, tree, split):
        if self.mesh.size == 1:
            sharding = SingleDeviceSharding(self.mesh.devices.item())
        else:
            sharding = NamedSharding(self.mesh, P(meshes.AXIS) if split else P())
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )


def make_network(sizes: Sizes, *, form: str = "auto", dtype: str = "float32") -> nets.Network:
    """The ConvNet."""
    return nets.build(
        "convnet",
        image_shape=sizes.image_shape,
        num_classes=sizes.num_classes,
        width=sizes.width,
        depth=sizes.depth,
        form=form,
        dtype=dtype,
    )


def distillation(network: nets.Network, sizes: Sizes, *, gradient: str) -> Program:
    """Several outer iterations of both phases, with the outer optimiser and the augmentation."""
    batch, num_steps = sizes.distill_batch, sizes.student_steps
    weights = tuple(float(w) for w in np.geomspace(0.4, 0.004, sizes.num_classes))
    phases = [
        steps.Phase("representation", "all", "backbone", num_steps, batch, 1.0, weights),
        steps.Phase("classifier", "classifier", "classifier", num_steps, batch, 1.0),
    ]
    names = ("image", "label", "step_size")
    tx = states.make_outer_optimizer(**{f"{n}_{r}": 0.5 for n in names for r in ("lr", "momentum")})
    mesh = meshes.make_mesh(1)
    step = steps.make_distill_step(network, phases, tx, _augment(), gradient=gradient)
    count = sizes.iterations or meshes.choose_iterations_per_call(10)

    def make_arguments():
        key, size = jax.random.key(0), sizes.ipc * sizes.num_classes
        synthetic = SyntheticSet(
            images=jnp.zeros((size, *sizes.image_shape)),
            label_logits=jnp.zeros((size, sizes.num_classes)),
            step_size=jnp.float32(0.01),
        )
        params = network.init(key)
        pairs = tuple(
            steps.ExpertPair(params, matching.select_part(params, phase.matched))
            for phase in phases
        )
        pairs = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), pairs)
        return states.init_state(key, synthetic, tx), pairs, jnp.ones(count, bool)

    arguments = jax.eval_shape(make_arguments)
    return Program(steps.repeat_step(step), arguments, (False,) * 3, mesh, (0,))


def phase(network: nets.Network, sizes: Sizes, *, gradient: str) -> Program:
    """Loss and gradient of the representation phase alone, without augmentation: the smallest
    program with all derivatives of the convolution, to compare its forms and precisions."""
    size, num_steps = sizes.ipc * sizes.num_classes, sizes.student_steps
    weights = tuple(float(w) for w in np.geomspace(0.4, 0.004, sizes.num_classes))
    kind = steps.Phase("representation", "all", "backbone", num_steps, size, 1.0, weights)

    def loss(synthetic, pair, batches, draws):
        return steps.phase_loss(
            network, kind, lambda _, x: x, synthetic, pair, batches, draws, gradient=gradient
        )

    def make_arguments():
        synthetic = SyntheticSet(
            images=jnp.zeros((size, *sizes.image_shape)),
            label_logits=jnp.zeros((size, sizes.num_classes)),
            step_size=jnp.float32(0.01),
        )
        params = network.init(jax.random.key(0))
        pair = steps.ExpertPair(params, matching.select_part(params, "backbone"))
        rows = jnp.zeros((num_steps, size), jnp.int32)
        return synthetic, pair, Batch(rows, jnp.zeros(rows.shape)), jnp.zeros(num_steps)

    arguments = jax.eval_shape(make_arguments)
    return Program(jax.value_and_grad(loss), arguments, (False,) * 4, meshes.make_mesh(1))


def expert_epoch(network: nets.Network, sizes: Sizes, *, stage: str) -> Program:
    """One epoch of a group of experts of a stage, spread over the devices."""
    recipe = experts.Recipe(
        num_epochs=100,
        batch_size=sizes.expert_batch,
        learning_rate=0.01,
        momentum=0.0,
        weight_decay=5e-3 if stage == "representation" else 0.0,
        rho=0.01,
        alpha=0.3,
        adaptive=True,
    )
    num_rows = sum(sizes.class_counts)
    if stage == "representation":
        expert = experts.make_representation_expert(network, recipe, _augment(), num_rows)
    else:
        expert = experts.make_classifier_expert(network, recipe, _augment(), sizes.class_counts)
    group = sizes.group or meshes.choose_group_size(
        100, network.sizes.training_bytes(sizes.expert_batch)
    )
    mesh = meshes.make_mesh(group)
    group = meshes.round_up(group, mesh)

    def make_arguments():
        keys = jax.random.split(jax.random.key(0), group)
        source = {} if stage == "representation" else jax.vmap(network.init)(keys)
        state, frozen = jax.vmap(expert.init)(keys, source)
        return keys, jnp.int32(0), state, frozen, (_images(sizes), jnp.zeros(num_rows, jnp.int32))

    axes = (0, None, 0, 0, None)
    lanes = meshes.choose_lanes(sizes.expert_batch * sizes.side**2 * sizes.width)
    epoch = meshes.spread(training.vectorize(expert.run_epoch, axes, lanes), axes, mesh)
    return Program(epoch, jax.eval_shape(make_arguments), tuple(a == 0 for a in axes), mesh)


def expert_start(network: nets.Network, sizes: Sizes) -> Program:
    """The parameters of a group of experts before their first epoch."""
    group = sizes.group or meshes.choose_group_size(
        100, network.sizes.training_bytes(sizes.expert_batch)
    )
    start = training.vectorize(network.init, (0,), 1)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), group))
    return Program(start, (keys,), (False,), meshes.make_mesh(1))


def evaluation_piece(network: nets.Network, sizes: Sizes) -> Program:
    """Some epochs of all evaluation networks on the synthetic set, spread over the devices."""
    evaluator, mesh, keys = _evaluation(network, sizes)
    size, epochs = sizes.ipc * sizes.num_classes, sizes.evaluation_epochs

    def make_arguments():
        width = len(keys())
        data = (
            jnp.zeros((width, size, *sizes.image_shape)),
            jnp.zeros((width, size, sizes.num_classes)),
        )
        numbers, rates = jnp.arange(epochs, dtype=jnp.int32), jnp.zeros((width, epochs))
        return keys(), numbers, evaluator.init(keys()), data, rates

    split = (True, False, True, True, True)
    return Program(evaluator.run_epochs, jax.eval_shape(make_arguments), split, mesh)


def prediction(network: nets.Network, sizes: Sizes) -> Program:
    """The classes that all evaluation networks give to 250 test images."""
    evaluator, mesh, keys = _evaluation(network, sizes)
    arguments = jax.eval_shape(
        lambda: (evaluator.init(keys()), jnp.zeros((250, *sizes.image_shape)))
    )
    return Program(evaluator.predict, arguments, (True, False), mesh)


def _evaluation(network, sizes):
    mesh = meshes.make_mesh(sizes.seeds)
    rows = sizes.ipc * sizes.num_classes
    evaluator = evaluation.make_evaluator(
        network,
        _augment(),
        num_rows=rows,
        num_epochs=1000,
        batch_size=128,
        data_per_network=True,
        momentum=0.9,
        weight_decay=5e-4,
        lanes=meshes.choose_lanes(min(128, rows) * sizes.side**2 * sizes.width),
        spread=lambda function, axes: meshes.spread(function, axes, mesh),
    )
    width = meshes.round_up(sizes.seeds, mesh)
    return evaluator, mesh, lambda: jax.random.split(jax.random.key(0), width)


def _images(sizes):
    """The training images as they lie on a device, whitened pixels or uint8 with the whitening."""
    count, features = sum(sizes.class_counts), int(np.prod(sizes.image_shape))
    if backend.is_cpu():
        return jnp.zeros((count, *sizes.image_shape))
    matrix = jnp.zeros((features, features))
    preprocessing = normalize.Preprocessing(
        mean=jnp.zeros(3),
        std=jnp.ones(3),
        zca_mean=jnp.zeros(features),
        zca_transform=matrix,
        zca_inverse=matrix,
    )
    return normalize.StoredImages(jnp.zeros((count, *sizes.image_shape), jnp.uint8), preprocessing)


def _augment():
    return augmentation.make_augment(STRATEGY)
