"""What TensorBoard shows of a run; nothing happens unless `runtime.tensorboard` is set."""

from typing import Any

import numpy as np

from ltdd_jax.distill import Method
from ltdd_jax.pipeline import artefacts
from ltdd_jax.pipeline.run import Run
from ltdd_jax.report import grid

_SIDE = 1000  # pixels of the picture of a set, at most
_PREFIX = "iteration_"  # of the rows of sets kept on the way


def show_set(run: Run, method: Method, state: Any, iteration: int) -> None:
    """The images of a set in a grid, as grid.png has them, and the spread of its values."""
    if not run.config.runtime.tensorboard:
        return
    synthetic = method.result(state)
    pixels = artefacts.make_pixels(run, synthetic, method.partition)
    sheet = grid.draw_grid(pixels, method.labels, run.problem.train.class_names, max_side=_SIDE)
    run.workspace.events.write(
        "distill",
        iteration,
        images={"distilled_images": np.asarray(sheet)},
        histograms={
            "images": np.asarray(synthetic.images),
            "label_logits": np.asarray(synthetic.label_logits),
        },
        scalars={"learned_step_size": float(synthetic.step_size)},
    )


def show_results(run: Run, results: dict[str, dict[str, Any]], num_iterations: int) -> None:
    """Balanced accuracy of every row; sets kept on the way make a curve with the last one."""
    events = run.workspace.events
    points = []
    for name, row in results.items():
        kept = name.removeprefix(_PREFIX)
        step = int(kept) if kept != name else 0 if "initial" in name else num_iterations
        points.append((step, "distilled" if kept != name else name, row["balanced"]))
    with events.record("evaluate", 0):
        for step, name, accuracy in sorted(points):  # readers take a step back for a restart
            events.write("evaluate", step, scalars={f"accuracy/{name}": accuracy})
