"""Evaluation networks trained together against one after the other.

    python benchmarks/evaluate.py --width 32 --images 100 --seeds 5 --json

Each runs the given number of epochs of the evaluation protocol on random CIFAR-shaped data.
"""

import cases
import jax
import jax.numpy as jnp
import timing

from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.runtime import mesh

_BATCH = 128


def make_run(*, width, num_images, num_seeds, num_epochs, form, dtype):
    """A closure that trains `num_seeds` networks in one compiled call."""
    network = cases.make_network(width=width, form=form, dtype=dtype)
    evaluator = evaluation.make_evaluator(
        network,
        lambda _, images: images,
        num_rows=num_images,
        num_epochs=num_epochs,
        batch_size=_BATCH,
        momentum=0.9,
        weight_decay=5e-4,
        lanes=mesh.choose_lanes(min(_BATCH, num_images) * 32 * 32 * width),
    )
    keys = jax.random.split(jax.random.key(0), num_seeds)
    state = evaluator.init(keys)
    data = (
        jax.random.normal(jax.random.key(1), (num_images, 32, 32, 3)),
        jax.random.normal(jax.random.key(2), (num_images, 10)),
    )
    epochs = jnp.arange(num_epochs, dtype=jnp.int32)
    rates = jnp.full((num_seeds, num_epochs), 0.01)
    run = jax.jit(evaluator.run_epochs)
    return lambda: jax.block_until_ready(run(keys, epochs, state, data, rates))


def main():
    parser = cases.make_parser(__doc__)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    dtype = timing.set_precision(args.precision)
    case = {
        "width": args.width,
        "num_images": args.images,
        "num_epochs": args.epochs,
        "form": args.form,
        "dtype": dtype,
    }
    single = make_run(num_seeds=1, **case)

    def one_by_one():
        for _ in range(args.seeds):
            single()

    runs = {"together": make_run(num_seeds=args.seeds, **case), "one_by_one": one_by_one}
    seconds = timing.time_alternating(runs, repeats=args.repeats)
    together, apart = timing.median(seconds["together"]), timing.median(seconds["one_by_one"])
    flops = 3 * timing.convnet_flops(width=args.width) * args.images * args.epochs * args.seeds
    timing.report(
        {
            **case,
            "precision": args.precision,
            "seeds": args.seeds,
            "seconds": together,
            "one_by_one_seconds": apart,
            "speedup": apart / together,
            "flops": flops,
            "peak_fraction": flops / together / timing.measure_peak(dtype),
            "repeats": args.repeats,
            **timing.describe_machine(),
        },
        as_json=args.json,
    )


if __name__ == "__main__":
    main()
