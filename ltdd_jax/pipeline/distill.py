"""Stage `distill`: optimises the synthetic set against the trajectories."""

import concurrent.futures
import dataclasses
import functools
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.distill import initialize, matching, sampling
from ltdd_jax.distill import state as states
from ltdd_jax.distill import step as steps
from ltdd_jax.losses import class_frequencies
from ltdd_jax.pipeline import experts as expert_stage
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, mesh, prng
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import SyntheticSet, UserError

_KEEP = 2  # checkpoints, so that one is left if the newest is damaged
_MAX_PIXEL = 1e6  # whitened pixels are of order 1; beyond this the run has exploded
_MAX_STEP_SIZE = 1e3


class Experts:
    """What distillation reads of both kinds of trajectories, snapshot by snapshot."""

    def __init__(self, config: ConfigDict, problem: Problem, workspace: Workspace):
        opened = []
        for stage in expert_stage.STAGES:
            found = expert_stage.open_trajectories(config, problem, workspace, stage)
            expert_stage.require_complete(found, config.experts.num_experts, stage)
            opened.append(found)
        self._representation, self._classifier = opened
        self._like = jax.eval_shape(problem.network.init, jax.random.key(0))

    def snapshot(self, stage: str, expert: int, epoch: int):
        """All parameters of an expert of `stage` at `epoch` (-1: the last)."""
        if stage == "representation":
            return self._representation.read(expert, epoch, self._like)
        return expert_stage.read_classifier_expert(
            self._representation, self._classifier, expert, epoch, self._like
        )


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


def initial_set(config: ConfigDict, problem: Problem, experts: Experts) -> SyntheticSet:
    """Synthetic set before the first iteration (DATM; method of arXiv 2408.14506, section 4)."""
    ipc, num_classes = config.distill.ipc, problem.num_classes
    order_key, noise_key, expert_key = jax.random.split(
        prng.stream_key(config.seed, "initialize"), 3
    )
    class_rows = [np.flatnonzero(problem.train.labels == k) for k in range(num_classes)]
    orders = initialize.permute_classes(order_key, class_rows)
    apply = jax.jit(problem.network.apply)
    labels = np.repeat(np.arange(num_classes), ipc)
    logits = functools.partial(_logits_in_blocks, apply)
    if config.distill.initial_images == "correct":
        params = experts.snapshot("classifier", 0, -1)

        def predict(rows):
            return np.argmax(logits(params, problem.train_images[rows]), axis=1)

        rows = initialize.select_correct(orders, ipc, predict)
    elif config.distill.initial_images == "real":
        rows = initialize.select_real(orders, ipc)
    else:
        rows = np.full(num_classes * ipc, initialize.NOISE)
    images = initialize.fill_images(noise_key, rows, problem.train_images)
    if config.distill.initial_images == "correct":
        of_experts = (
            logits(experts.snapshot("classifier", expert, -1), images)
            for expert in range(config.experts.num_experts)
        )
        label_logits = initialize.average_correct_logits(of_experts, labels)
    else:
        one = int(jax.random.randint(expert_key, (), 0, config.experts.num_experts))
        label_logits = logits(experts.snapshot("classifier", one, -1), images)
    return SyntheticSet(
        images=jnp.asarray(images),
        label_logits=jnp.asarray(label_logits),
        step_size=jnp.float32(config.distill.initial_step_size),
    )


def _logits_in_blocks(apply, params, images, block=256):
    padded = -(-len(images) // block) * block
    filled = np.concatenate([images, np.repeat(images[-1:], padded - len(images), axis=0)])
    parts = [apply(params, filled[i : i + block]) for i in range(0, padded, block)]
    return np.concatenate([np.asarray(part) for part in parts])[: len(images)]


class PairReader:
    """Reads the expert pairs of coming iterations in the background."""

    def __init__(self, config: ConfigDict, phases: list[steps.Phase], experts: Experts):
        self._experts = experts
        self._phases = phases
        self._ahead = config.distill.expert_epochs
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "snapshots")
        self._waiting: dict[tuple[int, int], concurrent.futures.Future] = {}
        count = config.distill.num_iterations
        root = prng.stream_key(config.seed, "schedule")
        self._schedule = {}
        for index, phase in enumerate(phases):
            section = config.distill[phase.name]
            expert_key, start_key = jax.random.split(jax.random.fold_in(root, index))
            upper = sampling.upper_start_epochs(
                count,
                min_epoch=section.min_start_epoch,
                current_epoch=section.current_start_epoch,
                max_epoch=section.max_start_epoch,
                sequential=section.sequential,
                expansion_end=section.expansion_end,
            )
            self._schedule[phase.name] = (
                sampling.schedule_experts(
                    expert_key, count, config.experts.num_experts, config.distill.experts_per_file
                ),
                sampling.schedule_start_epochs(start_key, section.min_start_epoch, upper),
            )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._executor.shutdown(cancel_futures=True)

    def prefetch(self, begin: int, end: int) -> None:
        """Starts reading the pairs of iterations begin..end-1."""
        self._waiting[begin, end] = self._executor.submit(self._read_block, begin, end)

    def take(self, begin: int, end: int) -> tuple[steps.ExpertPair, ...]:
        """The pairs prefetched before, stacked over iterations; one per phase."""
        return self._waiting.pop((begin, end)).result()

    def _read_block(self, begin, end):
        blocks = []
        for phase in self._phases:
            pairs = [self._read_pair(phase, iteration) for iteration in range(begin, end)]
            blocks.append(jax.tree.map(lambda *leaves: np.stack(leaves), *pairs))
        return tuple(blocks)

    def _read_pair(self, phase, iteration):
        experts, starts = self._schedule[phase.name]
        iteration = min(iteration, len(experts) - 1)  # padding of the last block
        expert, start = int(experts[iteration]), int(starts[iteration])
        target = self._experts.snapshot(phase.name, expert, start + self._ahead)
        return steps.ExpertPair(
            start=self._experts.snapshot(phase.name, expert, start),
            target=matching.select_part(target, phase.matched),
        )


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
        self._tx = make_optimizer(config)
        step = steps.make_distill_step(
            problem.network,
            self._phases,
            self._tx,
            problem.augment,
            gradient=config.distill.gradient,
            skip_threshold=config.distill.skip_threshold,
        )
        self._run_block = jax.jit(steps.repeat_step(step), donate_argnums=0)
        self._window = _Window()

    def run(self) -> SyntheticSet:
        """Optimises to the last iteration, from the last checkpoint if there is one."""
        experts = Experts(self._config, self._problem, self._workspace)
        state, done = self._restore()
        if state is None:
            synthetic = initial_set(self._config, self._problem, experts)
            key = prng.stream_key(self._config.seed, "distill")
            state, done = states.init_state(key, synthetic, self._tx), 0
        self._workspace.metrics.truncate_after("distill", done)
        if done >= self._total:
            return state.synthetic
        state = jax.device_put(state)
        with (
            PairReader(self._config, self._phases, experts) as reader,
            checkpoint.Writer() as writer,
            progress(self._total, initial=done, desc="distill", unit="iteration") as advance,
        ):
            state = self._loop(state, done, reader, writer, advance)
        return state.synthetic

    def _loop(self, state, done, reader, writer, advance):
        runtime = self._config.runtime
        saved, saved_at = done, time.monotonic()
        reader.prefetch(done, done + self._block)
        while done < self._total:
            count = min(self._block, self._total - done)
            pairs = reader.take(done, done + self._block)
            active = jnp.arange(self._block) < count
            state, metrics = self._run_block(state, jax.device_put(pairs), active)
            if done + count < self._total:
                reader.prefetch(done + count, done + count + self._block)
            metrics = jax.tree.map(lambda x, n=count: np.asarray(x)[:n], metrics)
            advance(count, loss=float(metrics["loss"][-1]))
            for offset in range(count):
                values = {name: float(x[offset]) for name, x in metrics.items()}
                self._note(done + offset + 1, values, saved)
            done += count
            minutes = (time.monotonic() - saved_at) / 60
            if (
                done == self._total
                or self._stop.requested
                or done - saved >= runtime.checkpoint_steps
                or (runtime.checkpoint_minutes and minutes >= runtime.checkpoint_minutes)
            ):
                self._save(writer, state, done)
                saved, saved_at = done, time.monotonic()
            if self._stop.requested and done < self._total:
                writer.wait()
                self._stop.raise_if_requested()
        return state

    def _note(self, step, values, saved):
        """Checks the numbers of one iteration and writes a log line when one is due."""
        problem = next((n for n, v in values.items() if not math.isfinite(v)), None)
        if problem is None and values["image_max"] > _MAX_PIXEL:
            problem = "image_max"
        if problem is None and abs(values["step_size"]) > _MAX_STEP_SIZE:
            problem = "step_size"
        if problem is not None:
            raise UserError(
                f"distillation went wrong at iteration {step}: {problem} is {values[problem]:g}; "
                "lower --config.distill.image_lr, --config.distill.step_size_lr or "
                "--config.distill.initial_step_size (another --workdir; set "
                "--config.experts.path to reuse the experts)"
                + (f"; iteration {saved} is the last that was saved" if saved else "")
            )
        self._window.add(values)
        if step % self._config.runtime.log_steps == 0 or step == self._total:
            self._workspace.metrics.write("distill", step, self._window.pop_means())

    def _save(self, writer, state, done):
        record = {
            "step": done,
            "window": dataclasses.asdict(self._window),
        }

        def prune():
            steps_there = checkpoint.complete_steps(self._workspace.distill)
            checkpoint.prune(self._workspace.distill, keep=steps_there[-_KEEP:])

        path = checkpoint.step_path(self._workspace.distill, done)
        writer.save(path, state, record, then=prune)

    def _restore(self):
        """The newest state that can be read, or None."""
        problems = []
        for done in reversed(checkpoint.complete_steps(self._workspace.distill)):
            path = checkpoint.step_path(self._workspace.distill, done)
            try:
                record = checkpoint.read_record(path)
                state = checkpoint.read_tree(path, self._abstract_state(), record)
            except checkpoint.CorruptCheckpointError as error:
                problems.append(str(error))
                print(f"warning: {error}; falling back to the one before")
                continue
            self._window = _Window(**record["window"])
            return state, done
        if problems:
            raise UserError(problems[-1])
        return None, 0

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
