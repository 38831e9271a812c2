"""Stage `distill`: optimises the synthetic set against the trajectories."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import training
from ltdd_jax.distill import state as states
from ltdd_jax.distill import step as steps
from ltdd_jax.losses import class_frequencies
from ltdd_jax.pipeline import health
from ltdd_jax.pipeline.initial import initial_set
from ltdd_jax.pipeline.pairs import Experts, PairReader
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, mesh, prng, processes
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import SyntheticSet, UserError

_KEEP = 2  # checkpoints, so that one is left if the newest is damaged
_MAX_PIXEL = 1e6  # whitened pixels are of order 1; beyond this the run has exploded
_MAX_STEP_SIZE = 1e3


def make_phases(config: ConfigDict, problem: Problem) -> list[steps.Phase]:
    """The paper's two phases, without one whose loss weight is 0."""
    distill = config.distill
    weights = class_frequencies(problem.class_counts, distill.class_weight_offset)
    kinds = {
        "representation": ("all", "backbone", tuple(float(w) for w in np.asarray(weights))),
        "classifier": ("classifier", "classifier", None),
    }
    return [
        steps.Phase(
            name=name,
            moved=moved,
            matched=matched,
            student_steps=distill[name].student_steps,
            batch_size=distill.batch_size,
            loss_weight=distill[name].loss_weight,
            class_weights=class_weights,
        )
        for name, (moved, matched, class_weights) in kinds.items()
        if distill[name].loss_weight > 0
    ]


def make_optimizer(config: ConfigDict):
    """The outer optimiser of the config."""
    names = ("image", "label", "step_size")
    rates = {f"{n}_{part}": config.distill[f"{n}_{part}"] for n in names for part in _LR_MOMENTUM}
    return states.make_outer_optimizer(**rates)


_LR_MOMENTUM = ("lr", "momentum")


@dataclasses.dataclass
class _Window:
    """Sums of the metrics since the last log line; saved, so that a resumed log is the same."""

    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    count: int = 0

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1

    def pop_means(self) -> dict[str, float]:
        means = {name: total / self.count for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class Distiller:
    """Runs the outer loop: compiled blocks of iterations, log lines, checkpoints."""

    def __init__(
        self, config: ConfigDict, problem: Problem, workspace: Workspace, stop: StopRequest
    ):
        self._config, self._workspace, self._stop = config, workspace, stop
        self._problem = problem
        self._total = config.distill.num_iterations
        self._block = min(
            config.runtime.iterations_per_call
            or mesh.choose_iterations_per_call(config.runtime.log_steps),
            self._total,
        )
        self._phases = make_phases(config, problem)
        num_pairs = config.distill.pairs_per_iteration
        self._devices = mesh.make_mesh(num_pairs, even=True)
        self._tx = make_optimizer(config)
        step = steps.make_distill_step(
            problem.network,
            self._phases,
            self._tx,
            problem.augment,
            gradient=config.distill.gradient,
            skip_threshold=config.distill.skip_threshold,
            num_pairs=num_pairs,
            map_pairs=self._map_pairs,
        )
        self._run_block = jax.jit(steps.repeat_step(step), donate_argnums=0)
        self._window = _Window()

    def _map_pairs(self, function, in_axes):
        """`function` over expert pairs, spread over the devices; in turn where one fills them."""
        height, width, _ = self._problem.image_shape
        rows = min(
            self._config.distill.batch_size, self._config.distill.ipc * self._problem.num_classes
        )
        lanes = mesh.choose_lanes(rows * height * width * self._config.net.width)
        mapped = training.vectorize(function, in_axes, lanes)
        return mesh.spread(mapped, in_axes, self._devices)

    def run(self) -> SyntheticSet:
        """Optimises to the last iteration, from the last checkpoint if there is one.

        Raises:
          UserError: experts are missing, a full disk, or numbers that went wrong.
          trajectory.DamagedSegmentError: a snapshot that is needed is damaged.
          Interrupted: stopped by a signal, with everything saved.
        """
        experts = Experts(self._config, self._problem, self._workspace)
        state, done = self._restore()
        if state is None:
            synthetic = initial_set(self._config, self._problem, experts)
            key = prng.stream_key(self._config.seed, "distill")
            state, done = states.init_state(key, synthetic, self._tx), 0
        self._workspace.metrics.truncate_after("distill", done)
        if done >= self._total:
            return state.synthetic
        state = mesh.place(state, self._devices, split=False)
        with (
            PairReader(self._config, self._phases, experts) as reader,
            checkpoint.Writer() as writer,
            progress(
                self._total,
                initial=done,
                desc="distill",
                unit="iteration",
                enabled=processes.is_first(),
            ) as advance,
        ):
            state = self._loop(state, done, reader, writer, advance)
        return state.synthetic

    def _loop(self, state, done, reader, writer, advance):
        saved, saved_at = done, time.monotonic()
        reader.prefetch(done, done + self._block)
        while done < self._total:
            count = min(self._block, self._total - done)
            pairs = reader.take(done, done + self._block)
            active = np.arange(self._block) < count
            state, metrics = self._run_block(
                state, mesh.place(pairs, self._devices, split=False), active
            )
            if done + count < self._total:
                reader.prefetch(done + count, done + count + self._block)
            metrics = jax.tree.map(lambda x, n=count: np.asarray(x)[:n], metrics)
            for offset in range(count):
                values = {name: float(x[offset]) for name, x in metrics.items()}
                self._note(done + offset + 1, values, saved)
            advance(count, loss=float(metrics["loss"][-1]))
            done += count
            if self._stop.agree(done == self._total, self._is_due(done - saved, saved_at)):
                self._save(writer, state, done, saved)
                saved, saved_at = done, time.monotonic()
            if self._stop.requested and done < self._total:
                writer.wait()
                self._stop.raise_if_requested()
        return state

    def _is_due(self, iterations, since):
        runtime = self._config.runtime
        minutes = (time.monotonic() - since) / 60
        return iterations >= runtime.checkpoint_steps or (
            runtime.checkpoint_minutes > 0 and minutes >= runtime.checkpoint_minutes
        )

    def _note(self, step, values, saved):
        """Checks the numbers of one iteration and writes a log line when one is due."""
        problem = next((n for n, v in values.items() if not math.isfinite(v)), None)
        if problem is None and values["image_max"] > _MAX_PIXEL:
            problem = "image_max"
        if problem is None and abs(values["step_size"]) > _MAX_STEP_SIZE:
            problem = "step_size"
        if problem is not None:
            raise _went_wrong(step, f"{problem} is {values[problem]:g}", saved)
        self._window.add(values)
        if step % self._config.runtime.log_steps == 0 or step == self._total:
            self._workspace.metrics.write("distill", step, self._window.pop_means())

    def _save(self, writer, state, done, saved):
        if not health.is_finite(state):
            raise _went_wrong(done, "the synthetic set has values that are not finite", saved)

        def prune():
            steps_there = checkpoint.complete_steps(self._workspace.distill)
            checkpoint.prune(self._workspace.distill, keep=steps_there[-_KEEP:])

        record = {"window": dataclasses.asdict(self._window)}
        path = checkpoint.step_path(self._workspace.distill, done)
        writer.save(path, state, record, then=prune)

    def _restore(self):
        """The newest state that can be trusted and its iteration, or (None, 0)."""
        found = processes.first_then_rest(
            lambda: checkpoint.restore_newest(
                self._workspace.distill, self._abstract_state(), self._workspace.warn
            )
        )
        if found is None:
            return None, 0
        state, record, done = found
        self._window = _Window(**record["window"])
        return state, done

    def _abstract_state(self):
        size = self._config.distill.ipc * self._problem.num_classes
        synthetic = SyntheticSet(
            images=jax.ShapeDtypeStruct((size, *self._problem.image_shape), jnp.float32),
            label_logits=jax.ShapeDtypeStruct((size, self._problem.num_classes), jnp.float32),
            step_size=jax.ShapeDtypeStruct((), jnp.float32),
        )
        return jax.eval_shape(
            lambda key, s: states.init_state(key, s, self._tx), jax.random.key(0), synthetic
        )


def _went_wrong(step, what, saved):
    return UserError(
        f"distillation went wrong at iteration {step}: {what}; lower --config.distill.image_lr, "
        "--config.distill.step_size_lr or --config.distill.initial_step_size, or set "
        "--config.distill.skip_threshold (another --workdir; set --config.experts.path to reuse "
        "the experts)" + (f"; iteration {saved} is the last that was saved" if saved else "")
    )
