"""GFLOP/s of the three maps of a convolution in every form, layer by layer of the ConvNet.

    python benchmarks/convolution.py --width 128 --images 100 --json

The default form of a backend (`ltdd_jax/nets/convolution.py`) is chosen from this. Every
measurement applies a map several times in one compiled loop, so that the time of a launch from
Python does not count, and the forms take turns.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import timing

from ltdd_jax.nets.convolution import FORMS, conv2d

MAPS = ("forward", "input_gradient", "kernel_gradient")
_LOOP_SECONDS, _LEAST_COUNT = 0.05, 4  # of one measurement of the fastest form, about


def list_layers(width: int) -> dict[str, tuple[int, int]]:
    """Name -> (side, input channels) of the layers of the ConvNet of depth 3."""
    sides = (32, 16, 8)
    channels = (3, width, width)
    return {
        f"{side}x{side} {inputs}->{width}": (side, inputs)
        for side, inputs in zip(sides, channels, strict=True)
    }


def make_map(name: str, form: str):
    """(images, kernel, cotangent) -> the map's result; 3x3 kernels, padding 1."""
    conv = functools.partial(conv2d, padding=1, form=form)

    def apply(images, kernel, cotangent):
        if name == "forward":
            return conv(images, kernel)
        if name == "input_gradient":
            return jax.vjp(lambda x: conv(x, kernel), images)[1](cotangent)[0]
        return jax.vjp(lambda k: conv(images, k), kernel)[1](cotangent)[0]

    return apply


def make_loop(apply, operands):
    """count -> `apply` that many times, in one compiled loop that the compiler cannot shorten."""

    @jax.jit
    def loop(count, operands):
        def body(_, carry):
            operands, _ = jax.lax.optimization_barrier(carry)
            return operands, apply(*operands)

        start = jax.tree.map(jnp.zeros_like, jax.eval_shape(apply, *operands))
        return jax.lax.fori_loop(0, count, body, (operands, start))[1]

    return lambda count: jax.block_until_ready(loop(count, operands))


def measure_layer(side, inputs, *, width, num_images, dtype, repeats):
    """form -> map -> median GFLOP/s of one layer."""
    keys = jax.random.split(jax.random.key(0), 3)
    operands = (
        jax.random.normal(keys[0], (num_images, side, side, inputs), dtype),
        jax.random.normal(keys[1], (3, 3, inputs, width), dtype),
        jax.random.normal(keys[2], (num_images, side, side, width), dtype),
    )
    flops = 2 * 9 * side * side * inputs * width * num_images
    found = {form: {} for form in FORMS}
    for name in MAPS:
        loops = {form: make_loop(make_map(name, form), operands) for form in FORMS}
        single = timing.time_alternating(
            {form: functools.partial(loop, 1) for form, loop in loops.items()}, repeats=2
        )
        # As many for all forms: a call takes new memory for its result, whose first use costs.
        count = max(_LEAST_COUNT, int(_LOOP_SECONDS / min(map(min, single.values()))))
        seconds = timing.time_alternating(
            {form: functools.partial(loop, count) for form, loop in loops.items()},
            repeats=repeats,
        )
        for form in FORMS:
            found[form][name] = flops * count / timing.median(seconds[form]) / 1e9
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--precision", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    dtype = timing.set_precision(args.precision)
    layers = {
        name: measure_layer(
            side,
            inputs,
            width=args.width,
            num_images=args.images,
            dtype=dtype,
            repeats=args.repeats,
        )
        for name, (side, inputs) in list_layers(args.width).items()
    }
    result = {
        "benchmark": "convolution",
        "width": args.width,
        "images": args.images,
        "precision": args.precision,
        "gflops": layers,
        "peak_gflops": timing.measure_peak(dtype) / 1e9,
        "repeats": args.repeats,
        **timing.describe_machine(),
    }
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
