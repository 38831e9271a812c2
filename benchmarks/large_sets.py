"""Memory and time of one outer iteration on large synthetic sets.

    python benchmarks/large_sets.py [--width 128] [--steps 2] [--cases 100x50] --json

The distillation step of the pipeline with the published settings of CIFAR-100-LT (40 + 20 student
steps, 1000 images per step, exact gradient), compiled for sets of different size: the temporaries
of the compiled program may grow with the set by some copies of it and by nothing else. It is
compiled once more with `--steps` student steps per phase to be run. `--steps 0` leaves that out;
a loop of 1 would be taken apart by the compiler and need other memory.
"""

import argparse
import dataclasses
import time

import cases
import jax
import jax.numpy as jnp
import numpy as np
import timing

from ltdd_jax.data import augment, sources
from ltdd_jax.distill import matching, trajectory
from ltdd_jax.distill import step as steps
from ltdd_jax.pipeline import distill, plan
from ltdd_jax.pipeline import problem as problems
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.types import SyntheticSet


@dataclasses.dataclass(frozen=True)
class Case:
    """A synthetic set of K classes x images per class, pixels per side, and the network's depth."""

    num_classes: int
    ipc: int
    side: int
    depth: int


CASES = {
    "100x10": Case(100, 10, 32, 3),
    "100x50": Case(100, 50, 32, 3),
    "200x10": Case(200, 10, 64, 4),
}


def make_config(case: Case, width: int, batch_size: int):
    """The config of CIFAR-100-LT with the sizes of `case`."""
    config = cases.load_config("cifar100_lt", "if20_ipc50,exact")
    config.net.width, config.net.depth = width, case.depth
    config.distill.ipc, config.trajectory.batch_size = case.ipc, batch_size
    return config


def make_problem(config, case: Case) -> problems.Problem:
    """A problem with three random pictures per class: the step needs their shape only."""
    labels = np.repeat(np.arange(case.num_classes, dtype=np.int32), 3)
    images = np.random.default_rng(0).integers(
        0, 256, (len(labels), case.side, case.side, 3), np.uint8
    )
    names = tuple(f"{label:03d}" for label in range(case.num_classes))
    data = sources.ImageSet(images, labels, names)
    floats = images.astype(np.float32) / 255
    return problems.Problem(
        train=data,
        test=data,
        fingerprint="",
        preprocessing=None,
        train_images=floats,
        test_images=floats,
        network=problems.make_network(config, data),
        augment=augment.make_augment(config.augment.strategy),
    )


def make_run(config, problem: problems.Problem) -> Run:
    """The record of a run that writes nothing."""
    return Run(config, problem, Workspace(config, "unused"), None)


def make_step(config, problem: problems.Problem):
    """The compiled block of one iteration and its arguments, as the pipeline makes them."""
    method = distill.make_method(make_run(config, problem))
    phases = trajectory.make_phases(config.trajectory, problem.class_counts)
    keys = jax.random.split(jax.random.key(0), 3)
    size = config.distill.ipc * problem.num_classes
    synthetic = SyntheticSet(
        images=jax.random.normal(keys[0], (size, *problem.image_shape)),
        label_logits=jax.random.normal(keys[1], (size, problem.num_classes)),
        step_size=jnp.float32(config.trajectory.initial_step_size),
    )
    start, target = problem.network.init(keys[2]), problem.network.init(keys[1])
    pairs = tuple(
        steps.ExpertPair(start=start, target=matching.select_part(target, phase.matched))
        for phase in phases
    )
    arguments = (
        method.init(keys[0], synthetic),
        jax.tree.map(lambda x: x[None], pairs),
        jnp.ones(1, bool),
    )
    block = jax.jit(steps.repeat_step(method.step), donate_argnums=0)
    return block.lower(*arguments).compile(), arguments


def measure(case: Case, *, width: int, batch_size: int, num_steps: int, precision: str) -> dict:
    """Bytes of the program with the published student steps, seconds of a shorter one."""
    config = make_config(case, width, batch_size)
    config.runtime.precision = precision
    problem = make_problem(config, case)
    begin = time.perf_counter()
    compiled, (state, *_) = make_step(config, problem)
    compile_seconds = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    run = make_run(config, problem)
    method = distill.make_method(run)
    result = dataclasses.asdict(case) | {
        "set_bytes": sum(x.nbytes for x in jax.tree.leaves(state.synthetic)),
        "temp_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "plan_distill_bytes": method.bytes,
        "plan_peak_bytes": plan.peak_bytes(run, method),
        "compile_seconds": compile_seconds,
    }
    if num_steps:
        for phase in (config.trajectory.representation, config.trajectory.classifier):
            phase.student_steps = num_steps
        result |= {"student_steps": num_steps, **time_step(config, problem)}
    return result


def time_step(config, problem) -> dict:
    """Seconds of one call after a first one; or that the memory does not suffice."""
    compiled, (state, *rest) = make_step(config, problem)
    try:
        state, _ = jax.block_until_ready(compiled(state, *rest))
        begin = time.perf_counter()
        jax.block_until_ready(compiled(state, *rest))
        return {"seconds": time.perf_counter() - begin}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"out_of_memory": str(error).splitlines()[0]}


def describe_growth(small: dict, large: dict) -> dict:
    """How the temporaries follow the set: bytes, and in copies of what the set grew by."""
    grown = large["set_bytes"] - small["set_bytes"]
    temporaries = large["temp_bytes"] - small["temp_bytes"]
    return {"set_bytes": grown, "temp_bytes": temporaries, "copies": temporaries / grown}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=1000, help="synthetic images per step")
    parser.add_argument("--steps", type=int, default=2, help="per phase, of what is run; not 1")
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--precision", default="float32", choices=timing.PRECISIONS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    timing.set_precision(args.precision)
    cases = {
        name: measure(
            CASES[name],
            width=args.width,
            batch_size=args.batch,
            num_steps=args.steps,
            precision=args.precision,
        )
        for name in args.cases.split(",")
    }
    result = {
        "benchmark": "large_sets",
        "width": args.width,
        "batch": args.batch,
        "precision": args.precision,
        "cases": cases,
        **timing.describe_machine(),
    }
    if {"100x10", "100x50"} <= cases.keys():
        result["growth"] = describe_growth(cases["100x10"], cases["100x50"])
    timing.report(result, as_json=args.json)


if __name__ == "__main__":
    main()
