"""Stage `evaluate`: fresh networks on the distilled set, a random real subset, and all data."""

import dataclasses
import time
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.evaluate import baselines, metrics
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.pipeline import health
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, files, mesh, prng, processes
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import SyntheticSet, UserError

_TEST_BATCH = 250
_KEEP = 2  # checkpoints, so that one is left if the newest is damaged
_CALLS = 40  # compiled calls per training run: each is a chance to show progress and to stop


@dataclasses.dataclass(frozen=True)
class Arm:
    """One data set to train on.

    Attributes:
      name: in the report.
      load: makes (images [N, H, W, C], label logits [N, K]); a leading axis E where every
        network has its own.
      num_rows: N.
      step_size: learning rate.
      num_epochs: nominal number E of the protocol.
      per_network: whether the data have the leading axis.
    """

    name: str
    load: Callable
    num_rows: int
    step_size: float
    num_epochs: int
    per_network: bool = False


def make_arms(config: ConfigDict, problem: Problem, synthetic: SyntheticSet) -> list[Arm]:
    """The distilled set and what it is compared with."""
    settings, ipc = config.evaluation, config.distill.ipc
    labels, num_classes = problem.train.labels, problem.num_classes

    def real(rows):
        logits = baselines.hard_label_logits(labels[rows], num_classes)
        return jnp.asarray(problem.train_images[rows]), jnp.asarray(logits)

    def random_real():
        root = prng.stream_key(config.seed, "baseline")
        rows = [
            baselines.draw_random_subset(jax.random.fold_in(root, seed), labels, num_classes, ipc)
            for seed in range(settings.num_seeds)
        ]
        return real(np.stack(rows))

    return [
        Arm(
            name="distilled",
            load=lambda: (jnp.asarray(synthetic.images), jnp.asarray(synthetic.label_logits)),
            num_rows=ipc * num_classes,
            step_size=float(synthetic.step_size),
            num_epochs=settings.num_epochs,
        ),
        Arm(
            name="random_real",
            load=random_real,
            num_rows=ipc * num_classes,
            step_size=settings.baseline_step_size,
            num_epochs=settings.num_epochs,
            per_network=True,
        ),
        Arm(
            name="full_real",
            load=lambda: real(np.arange(len(labels))),
            num_rows=len(labels),
            step_size=settings.baseline_step_size,
            num_epochs=settings.full_num_epochs or settings.num_epochs,
        ),
    ]


def run_evaluate(
    config: ConfigDict,
    problem: Problem,
    workspace: Workspace,
    synthetic: SyntheticSet,
    stop: StopRequest,
) -> dict[str, dict]:
    """Evaluates every arm that is not finished yet; returns the summary of each.

    Raises:
      UserError: a full disk, or numbers that went wrong.
      Interrupted: stopped by a signal, with everything saved.
    """
    results = {}
    trained_on = _checksum(synthetic)
    for index, arm in enumerate(make_arms(config, problem, synthetic)):
        path = workspace.evaluate / f"{arm.name}.json"
        found = processes.first_then_rest(lambda p=path: workspace.read_or_set_aside(p))
        if found is not None and found["synthetic"] != trained_on:
            workspace.warn(f"{path} is of another synthetic set; evaluating this one")
            found = None
        if found is None:
            key = jax.random.fold_in(prng.stream_key(config.seed, "evaluate"), index)
            accuracies = _ArmRun(config, problem, workspace, arm, stop, trained_on).run(key)
            found = {"per_seed_per_class": accuracies.tolist(), "synthetic": trained_on}
            if processes.is_first():
                files.write_sealed(path, found)
            stop.agree()
            stop.raise_if_requested()
        if processes.is_first():
            checkpoint.prune(workspace.evaluate / arm.name, keep=())  # of no use any more
        results[arm.name] = metrics.summarize(
            np.asarray(found["per_seed_per_class"]),
            problem.test.class_counts(),
            np.asarray(problem.class_counts),
        )
    return results


def _checksum(synthetic):
    """What ties results to the set they are of; hexadecimal."""
    value = 0
    for leaf in jax.tree.leaves(synthetic):
        value = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), value)
    return f"{value:08x}"


def _step_values(config, problem, arm):
    """Numbers in the largest feature map of a batch of one network."""
    height, width, _ = problem.image_shape
    return min(config.evaluation.batch_size, arm.num_rows) * height * width * config.net.width


class _ArmRun:
    """Trains the networks of one arm in pieces, with checkpoints between them."""

    def __init__(self, config, problem, workspace, arm, stop, trained_on):
        self._workspace, self._trained_on = workspace, trained_on
        self._config, self._problem, self._arm, self._stop = config, problem, arm, stop
        self._directory = workspace.evaluate / arm.name
        settings = config.evaluation
        self._devices = mesh.make_mesh(settings.num_seeds)
        self._evaluator = evaluation.make_evaluator(
            problem.network,
            problem.augment,
            num_rows=arm.num_rows,
            num_epochs=arm.num_epochs,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            data_per_network=arm.per_network,
            lanes=mesh.choose_lanes(_step_values(config, problem, arm)),
            spread=lambda function, axes: mesh.spread(function, axes, self._devices),
        )
        self._total = arm.num_epochs + 1
        self._piece = -(-self._total // _CALLS)

    def run(self, key: jax.Array) -> np.ndarray:
        """Accuracy of every network in every class, float64 [E, K] in 0..1."""
        arm, num_seeds = self._arm, self._config.evaluation.num_seeds
        # Padding networks fill the last devices; their results are dropped.
        width = mesh.round_up(num_seeds, self._devices)
        seeds = jnp.minimum(jnp.arange(width), num_seeds - 1)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(seeds)
        state = jax.jit(self._evaluator.init)(keys)
        state, done = self._restore(state, seeds)
        keys, state = mesh.place((keys, state), self._devices, split=True)
        rates = evaluation.learning_rates(arm.step_size, arm.num_epochs)
        run_piece = jax.jit(self._run_piece)
        data = arm.load()
        if arm.per_network:
            data = jax.tree.map(lambda x: x[seeds], data)
        data = mesh.place(data, self._devices, split=arm.per_network)
        with (
            checkpoint.Writer() as writer,
            progress(
                self._total,
                initial=done,
                desc=f"evaluate {arm.name}",
                unit="epoch",
                enabled=processes.is_first(),
            ) as bar,
        ):
            saved_at = time.monotonic()
            while done < self._total:
                epochs = np.arange(done, done + self._piece)
                active = epochs < self._total
                piece_rates = rates[np.minimum(epochs, self._total - 1)]
                state, losses = run_piece(
                    keys, epochs.astype(np.int32), state, data, piece_rates, active
                )
                loss = float(mesh.fetch(losses)[:, active].mean())
                done += int(active.sum())
                self._check(loss, state, done)
                bar(int(active.sum()), loss=loss)
                minutes = self._config.runtime.checkpoint_minutes
                due = minutes > 0 and time.monotonic() - saved_at > 60 * minutes
                if self._stop.agree(due) and done < self._total:
                    self._save(writer, state, done)
                    saved_at = time.monotonic()
                if self._stop.requested and done < self._total:
                    writer.wait()
                    self._stop.raise_if_requested()
        predictions = self._predict(state)[:num_seeds]
        num_classes = self._problem.num_classes
        return metrics.per_class_accuracy(predictions, self._problem.test.labels, num_classes)

    def _check(self, loss, state, done):
        if not (np.isfinite(loss) and health.is_finite(state)):
            raise UserError(
                f"training on the {self._arm.name} set went wrong before epoch {done}: its loss "
                f"is {loss:g} and its learning rate {self._arm.step_size:g}; the latter is "
                "--config.evaluation.baseline_step_size for real images, and learned from "
                "--config.distill.initial_step_size on for the distilled set"
            )

    def _run_piece(self, keys, epochs, state, data, rates, active):
        """Epochs that are not active (padding of the last piece) change nothing."""

        def body(state, inputs):
            epoch, rate, is_active = inputs
            return jax.lax.cond(
                is_active,
                lambda s: self._one_epoch(keys, epoch, s, data, rate),
                lambda s: (s, jnp.full(keys.shape, jnp.nan, jnp.float32)),
                state,
            )

        state, losses = jax.lax.scan(body, state, (epochs, rates, active))
        return state, losses.T

    def _one_epoch(self, keys, epoch, state, data, rate):
        state, losses = self._evaluator.run_epochs(keys, epoch[None], state, data, rate[None])
        return state, losses[:, 0]

    def _predict(self, state):
        images = self._problem.test_images
        predict = jax.jit(self._evaluator.predict)
        parts = []
        for begin in range(0, len(images), _TEST_BATCH):
            block = images[begin : begin + _TEST_BATCH]
            padding = np.repeat(block[-1:], _TEST_BATCH - len(block), axis=0)
            found = mesh.fetch(predict(state, np.concatenate([block, padding])))
            parts.append(found[:, : len(block)])
        return np.concatenate(parts, axis=1)

    def _save(self, writer, state, done):
        """Without padding networks: their number depends on the devices."""
        kept = jax.tree.map(lambda x: x[: self._config.evaluation.num_seeds], mesh.fetch(state))

        def prune():
            checkpoint.prune(
                self._directory, keep=checkpoint.complete_steps(self._directory)[-_KEEP:]
            )

        path = checkpoint.step_path(self._directory, done)
        writer.save(path, kept, {"synthetic": self._trained_on}, then=prune)

    def _restore(self, state, seeds):
        """The newest state of this arm that can be trusted, else the given one, and its epoch."""
        count = self._config.evaluation.num_seeds
        like = jax.eval_shape(lambda: jax.tree.map(lambda x: x[:count], state))
        found = processes.first_then_rest(
            lambda: checkpoint.restore_newest(self._directory, like, self._workspace.warn)
        )
        if found is None or found[1]["synthetic"] != self._trained_on:
            if found is not None and processes.is_first():
                checkpoint.prune(self._directory, keep=())
            return state, 0
        return jax.tree.map(lambda x: jnp.asarray(x)[seeds], found[0]), found[2]
