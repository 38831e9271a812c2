"""Seconds per expert-epoch of representation experts, groups of ours against a PyTorch loop.

    python benchmarks/expert_epoch.py --width 32 --experts 1,4,8 --peer torch --json

CIFAR-shaped random data, batch 256, adaptive GSAM (two gradients per step), weight decay, no
augmentation on either side. The floor is 6 forward passes per image.
"""

import cases
import jax
import jax.numpy as jnp
import timing

from ltdd_jax import training
from ltdd_jax.experts import train as experts
from ltdd_jax.runtime import mesh

RECIPE = experts.Recipe(
    num_epochs=1,
    batch_size=256,
    learning_rate=0.01,
    momentum=0.0,
    weight_decay=5e-3,
    rho=0.01,
    alpha=0.3,
    adaptive=True,
)


def make_ours(*, width, num_experts, num_images, form, dtype):
    """A closure that runs one epoch of a group."""
    network = cases.make_network(width=width, form=form, dtype=dtype)
    expert = experts.make_representation_expert(
        network, RECIPE, lambda _, images: images, num_images
    )
    keys = jax.random.split(jax.random.key(0), num_experts)
    state, frozen = jax.vmap(expert.init, in_axes=(0, None))(keys, {})
    data = (
        jax.random.normal(jax.random.key(1), (num_images, 32, 32, 3)),
        jnp.arange(num_images, dtype=jnp.int32) % 10,
    )
    lanes = mesh.choose_lanes(RECIPE.batch_size * 32 * 32 * width)
    epoch = jax.jit(training.vectorize(expert.run_epoch, (0, None, 0, 0, None), lanes))
    return lambda: jax.block_until_ready(epoch(keys, jnp.int32(0), state, frozen, data))


def make_peer(*, width, num_images):
    """A closure that runs one epoch of one expert in PyTorch."""
    import peers

    return peers.make_gsam_epoch(width=width, num_images=num_images, recipe=RECIPE)


def main():
    parser = cases.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--experts", default="1,4,8", help="group sizes")
    parser.add_argument("--images", type=int, default=2048, help="in one epoch")
    parser.add_argument("--peer", choices=["torch"])
    args = parser.parse_args()
    dtype = timing.set_precision(args.precision)
    sizes = [int(word) for word in args.experts.split(",")]
    runs = {
        size: make_ours(
            width=args.width,
            num_experts=size,
            num_images=args.images,
            form=args.form,
            dtype=dtype,
        )
        for size in sizes
    }
    if args.peer:
        runs["peer"] = make_peer(width=args.width, num_images=args.images)
    seconds = timing.time_alternating(runs, repeats=args.repeats)
    per_expert = {size: timing.median(seconds[size]) / size for size in sizes}
    flops = 6 * timing.convnet_flops(width=args.width) * args.images
    result = {
        "width": args.width,
        "images": args.images,
        "form": args.form,
        "precision": args.precision,
        "seconds_per_expert_epoch": per_expert,
        "cost_against_one": {size: per_expert[size] / per_expert[sizes[0]] for size in sizes},
        "flops": flops,
        "peak_fraction": flops / min(per_expert.values()) / timing.measure_peak(dtype),
        "repeats": args.repeats,
        **timing.describe_machine(),
    }
    if args.peer:
        peer = timing.median(seconds["peer"])
        result |= {
            "peer": args.peer,
            "peer_seconds": peer,
            "speedup": {size: peer / per_expert[size] for size in sizes},
        }
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
