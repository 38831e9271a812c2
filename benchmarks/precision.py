"""Error of reduced precision against float32: exact gradients of the stored matching problems.

    python benchmarks/precision.py --precision bfloat16

On an accelerator `tf32` shows its error too; a CPU computes it in float32.
"""

import argparse
import pathlib
import sys

import jax
import numpy as np
import timing

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from ltdd_jax import nets
from ltdd_jax.distill import step as steps
from tests.distill import golden_matching


def compute_gradients(problem, precision):
    """Matching loss and exact gradient of one stored problem at `precision`."""
    dtype = timing.set_precision(precision)
    layout = problem.layout
    network = nets.build(
        "convnet",
        image_shape=problem.synthetic.images.shape[1:],
        num_classes=layout["num_classes"],
        width=layout["width"],
        depth=layout["depth"],
        dtype=dtype,
    )

    def loss(synthetic):
        return steps.phase_loss(
            network,
            problem.phase,
            problem.augment,
            synthetic,
            problem.pair,
            problem.batches,
            problem.draws,
            gradient="exact",
        )

    return jax.jit(jax.value_and_grad(loss))(problem.synthetic)


def compare(a, b):
    """Relative L2 error and cosine."""
    a, b = (np.asarray(x, np.float64).ravel() for x in (a, b))
    return np.linalg.norm(a - b) / np.linalg.norm(b), a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", default="bfloat16", choices=timing.PRECISIONS)
    args = parser.parse_args()
    print("| problem | loss | images | cosine | labels | cosine | step size |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in golden_matching.NAMES:
        problem = golden_matching.load(name)
        value, grads = compute_gradients(problem, args.precision)
        exact_value, exact = compute_gradients(problem, "float32")
        images, images_cosine = compare(grads.images, exact.images)
        labels, labels_cosine = compare(grads.label_logits, exact.label_logits)
        slope = abs(float(grads.step_size / exact.step_size) - 1)
        print(
            f"| {name.removeprefix('matching_grad_')} | {abs(float(value / exact_value) - 1):.1e} "
            f"| {images:.1e} | {images_cosine:.5f} | {labels:.1e} | {labels_cosine:.5f} "
            f"| {slope:.1e} |"
        )


if __name__ == "__main__":
    main()
