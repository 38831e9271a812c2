"""One phase of one outer iteration: loss and gradient of the unroll, ours and a PyTorch loop.

    python benchmarks/distill_step.py --width 128 --images 100 --steps 4 --gradient exact \\
        --peer torch --json

ConvNet of depth 3 on 32x32x3, all images in one batch, class-weighted loss, backbone matched, no
augmentation, float32. The floor is 9 forward passes per image and step (1 + 2 for the inner
gradient, 2 + 4 for the derivative of its product with the adjoint).
"""

import time

import cases
import jax
import jax.numpy as jnp
import numpy as np
import timing

from ltdd_jax.distill import step as steps
from ltdd_jax.nets import partition
from ltdd_jax.types import Batch, SyntheticSet


def make_case(network, *, num_images, num_steps, num_classes=10):
    """Phase, synthetic set, expert pair and batches with random numbers."""
    keys = jax.random.split(jax.random.key(0), 4)
    start = network.init(keys[0])
    target = jax.tree.map(
        lambda p: p + 0.01 * jax.random.normal(keys[1], p.shape), partition.split(start)[0]
    )
    weights = np.geomspace(0.4, 0.004, num_classes)
    phase = steps.Phase(
        name="representation",
        moved="all",
        matched="backbone",
        student_steps=num_steps,
        batch_size=num_images,
        loss_weight=1.0,
        class_weights=tuple(float(w) for w in weights),
    )
    synthetic = SyntheticSet(
        images=jax.random.normal(keys[2], (num_images, 32, 32, 3)),
        label_logits=jax.random.normal(keys[3], (num_images, num_classes)),
        step_size=jnp.float32(0.01),
    )
    rows = jnp.broadcast_to(jnp.arange(num_images, dtype=jnp.int32), (num_steps, num_images))
    batches = Batch(rows, jnp.full(rows.shape, 1 / num_images, jnp.float32))
    return phase, synthetic, steps.ExpertPair(start=start, target=target), batches


def compile_ours(*, width, num_images, num_steps, gradient, form, dtype):
    """The compiled value and gradient, its arguments and the seconds to compile."""
    network = cases.make_network(width=width, form=form, dtype=dtype)
    phase, synthetic, pair, batches = make_case(network, num_images=num_images, num_steps=num_steps)

    def loss(synthetic, pair, batches, draws):
        return steps.phase_loss(
            network,
            phase,
            lambda _, images: images,
            synthetic,
            pair,
            batches,
            draws,
            gradient=gradient,
        )

    args = synthetic, pair, batches, jnp.zeros(num_steps)
    start = time.perf_counter()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*args).compile()
    return compiled, args, time.perf_counter() - start


def time_peer(args):
    """A closure that runs the PyTorch loop once."""
    import peers

    case = peers.make_distill_case(width=args.width, num_images=args.images)
    start, target, images, label_logits, class_weights = case
    return lambda: peers.two_pass_step(
        start, target, images, label_logits, 0.01, class_weights, args.steps
    )


def main():
    parser = cases.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--gradient", default="exact")
    parser.add_argument("--peer", choices=["torch"])
    args = parser.parse_args()
    dtype = timing.set_precision(args.precision)
    compiled, inputs, compile_seconds = compile_ours(
        width=args.width,
        num_images=args.images,
        num_steps=args.steps,
        gradient=args.gradient,
        form=args.form,
        dtype=dtype,
    )
    runs = {"ours": lambda: jax.block_until_ready(compiled(*inputs))}
    if args.peer:
        runs["peer"] = time_peer(args)
    seconds = timing.time_alternating(runs, repeats=args.repeats)
    ours = timing.median(seconds["ours"])
    flops = 9 * timing.convnet_flops(width=args.width) * args.images * args.steps
    result = {
        **{
            name: getattr(args, name)
            for name in ("width", "images", "steps", "gradient", "form", "precision")
        },
        "seconds": ours,
        "compile_seconds": compile_seconds,
        "temp_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "flops": flops,
        "peak_fraction": flops / ours / timing.measure_peak(dtype),
        "repeats": args.repeats,
        **timing.describe_machine(),
    }
    if args.peer:
        peer = timing.median(seconds["peer"])
        result |= {"peer": args.peer, "peer_seconds": peer, "ratio": ours / peer}
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
