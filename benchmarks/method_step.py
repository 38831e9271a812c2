"""One iteration of a comparison method, ours and a plain PyTorch loop, in turn in one process.

    python benchmarks/method_step.py --method dm --width 32 --batch 64 --peer torch --json

Methods: dm, dc and idm (the image steps of one iteration; networks are not trained in it), teacher
(one epoch of a logit-adjusted teacher) and student (one epoch of the second block of evaluation).
ConvNet of depth 3 on 10 classes of 32x32x3, float32; matching is not augmented. The floor counts
forward passes: 1 for real images and 3 for synthetic ones of dm and idm, 3 and 9 for dc (a gradient
of a gradient), 3 for training and 1 for a teacher that is asked.
"""

import functools

import cases
import jax
import jax.numpy as jnp
import numpy as np
import timing

from ltdd_jax import families
from ltdd_jax.distill import Task
from ltdd_jax.evaluate import student as students
from ltdd_jax.presets import PRESETS
from ltdd_jax.runtime import prng
from ltdd_jax.teachers import balance
from ltdd_jax.teachers import train as teacher_training

_CLASSES = 10
_IPC = 10
_TEACHER_RATE, _STUDENT_RATE = 0.01, 0.025


def make_task(network, batch_size: int) -> Task:
    """A balanced task on noise, as many images of a class as a batch takes."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_CLASSES * batch_size, 32, 32, 3)).astype(np.float32)
    return Task(
        network=network,
        augment=_leave,
        augment_siamese=_leave,
        images=images,
        labels=np.repeat(np.arange(_CLASSES, dtype=np.int32), batch_size),
        class_counts=(batch_size,) * _CLASSES,
        stream=functools.partial(prng.stream_key, 0),
        snapshot=lambda kind, expert, epoch: {},
        num_experts=1,
        input_range=(np.full(3, -3, np.float32), np.full(3, 3, np.float32)),
    )


def _leave(key, images):
    return images


def make_matching(network, name: str, batch_size: int):
    """A closure that runs one iteration of a matching method, and its floor in FLOP."""
    task, section = make_task(network, batch_size), PRESETS[name].section
    config = cases.load_config("cifar10_lt", f"if100_ipc10,{name}")
    settings = config[section].to_dict() | {"batch_size": batch_size}
    if name == "dc":
        settings["training_epochs"] = 0
    if name == "idm":
        settings["trained_members"] = 0
    method = families.find_builder(section)(task, ipc=_IPC, **settings)
    constants = jax.tree.map(jnp.asarray, dict(method.constants()))
    state = jax.jit(method.init)(jax.random.key(0), method.start())
    inputs = jax.tree.map(jnp.asarray, method.read(0))
    step = jax.jit(method.step)
    passes = {"dm": (1, 3), "idm": (1, 3), "dc": (3, 9)}[name]
    rows = batch_size, _IPC * method.partition**2
    floor = _CLASSES * sum(n * p for n, p in zip(rows, passes, strict=True))
    run = lambda: jax.block_until_ready(step(state, inputs, **constants))  # noqa: E731
    return run, floor * network.sizes.flops


def make_teacher(network, num_images: int, batch_size: int):
    """A closure that trains one epoch of a teacher, and its floor in FLOP."""
    rng = np.random.default_rng(0)
    counts = (num_images // _CLASSES,) * _CLASSES
    recipe = teacher_training.Recipe(
        recipe="logit_adjusted", num_epochs=1, batch_size=batch_size, learning_rate=_TEACHER_RATE,
        momentum=0.9, nesterov=False, weight_decay=5e-4, schedule="constant", tau=1.0,
        weight_power=0.0, sampling_power=1.0, similarity=0.0,
    )  # fmt: skip
    made = teacher_training.make_training(network, recipe, _leave, counts)
    images = rng.normal(size=(sum(counts), 32, 32, 3)).astype(np.float32)
    labels = np.repeat(np.arange(_CLASSES, dtype=np.int32), counts)
    data = jax.tree.map(jnp.asarray, (images, labels))
    key = jax.random.key(0)
    state, epoch = jax.jit(made.init)(key), jax.jit(made.run_epoch)
    run = lambda: jax.block_until_ready(epoch(key, jnp.int32(0), state, data))  # noqa: E731
    return run, 3.0 * sum(counts) * network.sizes.flops


def make_student(network, num_images: int, batch_size: int):
    """A closure that trains one student for an epoch, and its floor in FLOP."""
    rng = np.random.default_rng(0)
    protocol = students.Protocol(batch_size=batch_size, num_epochs=1)
    made = students.make_student(network, (network,), protocol, num_rows=num_images)
    keys = jax.random.split(jax.random.key(0), 1)
    state, epochs = jax.jit(made.init)(keys), jax.jit(made.run_epochs)
    lesson = students.Lesson(
        images=jnp.asarray(rng.normal(size=(1, num_images, 32, 32, 3)), jnp.float32),
        labels=jnp.asarray(np.arange(num_images)[None] % _CLASSES, jnp.int32),
    )
    teaching = students.Teaching(
        params=(network.init(jax.random.key(1)),), shift=jnp.zeros(_CLASSES)
    )
    rates = jnp.full((1, 1), _STUDENT_RATE)
    run = lambda: jax.block_until_ready(  # noqa: E731
        epochs(keys, jnp.zeros(1, jnp.int32), state, (lesson, teaching), rates)
    )
    return run, 4.0 * num_images * network.sizes.flops


def make_peer(args):
    """A closure that does the same in PyTorch."""
    import method_peers
    import peers
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = {"width": args.width}
    params = peers.make_params(generator, num_classes=_CLASSES, **shape)
    real = list(torch.randn(_CLASSES, args.batch, 3, 32, 32, generator=generator))
    made = torch.randn(_CLASSES, _IPC, 3, 32, 32, generator=generator).requires_grad_(True)
    optimizer = torch.optim.SGD([made], lr=1e-3, momentum=0.5)
    images = torch.randn(args.images, 3, 32, 32, generator=generator)
    labels = torch.arange(args.images) % _CLASSES
    shift = torch.as_tensor(balance.logit_shift("logit_adjusted", (1,) * _CLASSES))
    return {
        "dm": lambda: method_peers.match_distributions(generator, real, made, optimizer, **shape),
        "dc": lambda: method_peers.match_gradients(generator, real, made, optimizer, **shape),
        "idm": lambda: method_peers.match_expanded(params, real, made, optimizer),
        "teacher": lambda: method_peers.train_epoch(
            params, images, labels, batch_size=args.batch, log_prior=shift,
            learning_rate=_TEACHER_RATE, generator=generator,
        ),
        "student": lambda: method_peers.train_student(
            params, params, images, batch_size=args.batch, temperature=4.0,
            learning_rate=_STUDENT_RATE, generator=generator,
        ),
    }[args.method]  # fmt: skip


def make_ours(network, args):
    """A closure that runs once what was asked for, and its floor in FLOP."""
    if args.method == "teacher":
        return make_teacher(network, args.images, args.batch)
    if args.method == "student":
        return make_student(network, args.images, args.batch)
    return make_matching(network, args.method, args.batch)


def main():
    parser = cases.make_parser(__doc__)
    names = ["dm", "dc", "idm", "teacher", "student"]
    parser.add_argument("--method", choices=names, default="dm")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64, help="of each class in dm, dc and idm")
    parser.add_argument("--images", type=int, default=1000, help="of teacher and student")
    parser.add_argument("--peer", choices=["torch"])
    args = parser.parse_args()
    dtype = timing.set_precision(args.precision)
    network = cases.make_network(width=args.width, form=args.form, dtype=dtype)
    ours, flops = make_ours(network, args)
    runs = {"ours": ours}
    if args.peer:
        runs["peer"] = make_peer(args)
    seconds = timing.time_alternating(runs, repeats=args.repeats)
    own = timing.median(seconds["ours"])
    asked = ("method", "width", "batch", "images", "form", "precision", "repeats")
    result = {
        **{name: getattr(args, name) for name in asked},
        "seconds": own,
        "flops": flops,
        "peak_fraction": flops / own / timing.measure_peak(dtype),
        **timing.describe_machine(),
    }
    if args.peer:
        peer = timing.median(seconds["peer"])
        result |= {"peer": args.peer, "peer_seconds": peer, "ratio": own / peer}
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
