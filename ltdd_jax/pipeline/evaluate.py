"""Stage `evaluate`: fresh networks on the distilled set, a random real subset, and all data."""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.evaluate import baselines, metrics
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, log, prng
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import SyntheticSet, UserError

_TEST_BATCH = 250
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
    """Evaluates every arm that is not finished yet; returns the summary of each."""
    results = {}
    for index, arm in enumerate(make_arms(config, problem, synthetic)):
        path = workspace.evaluate / f"{arm.name}.json"
        found = workspace.read_json(path)
        if found is None:
            key = jax.random.fold_in(prng.stream_key(config.seed, "evaluate"), index)
            accuracies = _ArmRun(config, problem, workspace, arm, stop).run(key)
            found = {"per_seed_per_class": accuracies.tolist()}
            log.write_json(path, found)
        results[arm.name] = metrics.summarize(
            np.asarray(found["per_seed_per_class"]),
            problem.test.class_counts(),
            np.asarray(problem.class_counts),
        )
    return results


class _ArmRun:
    """Trains the networks of one arm in pieces, with checkpoints between them."""

    def __init__(self, config, problem, workspace, arm, stop):
        self._config, self._problem, self._arm, self._stop = config, problem, arm, stop
        self._directory = workspace.evaluate / arm.name
        settings = config.evaluation
        self._evaluator = evaluation.make_evaluator(
            problem.network,
            problem.augment,
            num_rows=arm.num_rows,
            num_epochs=arm.num_epochs,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            data_per_network=arm.per_network,
        )
        self._total = arm.num_epochs + 1
        self._piece = -(-self._total // _CALLS)

    def run(self, key: jax.Array) -> np.ndarray:
        """Accuracy of every network in every class, float64 [E, K] in 0..1."""
        arm, num_seeds = self._arm, self._config.evaluation.num_seeds
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(num_seeds))
        state = jax.jit(self._evaluator.init)(keys)
        state, done = self._restore(state)
        rates = evaluation.learning_rates(arm.step_size, arm.num_epochs)
        run_piece = jax.jit(self._run_piece)
        data = arm.load()
        with (
            checkpoint.Writer() as writer,
            progress(self._total, initial=done, desc=f"evaluate {arm.name}", unit="epoch") as bar,
        ):
            saved_at = time.monotonic()
            while done < self._total:
                epochs = np.arange(done, done + self._piece)
                active = epochs < self._total
                piece_rates = rates[np.minimum(epochs, self._total - 1)]
                state, losses = run_piece(
                    keys, jnp.asarray(epochs, jnp.int32), state, data, piece_rates, active
                )
                loss = float(np.asarray(losses)[:, active].mean())
                if not np.isfinite(loss):
                    raise UserError(
                        f"training on the {arm.name} set went wrong: its loss is {loss} at epoch "
                        f"{done}; its learning rate is {arm.step_size:g}"
                    )
                done += int(active.sum())
                bar(int(active.sum()), loss=loss)
                minutes = self._config.runtime.checkpoint_minutes
                due = minutes and time.monotonic() - saved_at > 60 * minutes
                if done < self._total and (due or self._stop.requested):
                    writer.save(checkpoint.step_path(self._directory, done), state, {})
                    saved_at = time.monotonic()
                if self._stop.requested and done < self._total:
                    writer.wait()
                    self._stop.raise_if_requested()
        predictions = self._predict(state)
        num_classes = self._problem.num_classes
        return metrics.per_class_accuracy(predictions, self._problem.test.labels, num_classes)

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
            parts.append(
                np.asarray(predict(state, np.concatenate([block, padding])))[:, : len(block)]
            )
        return np.concatenate(parts, axis=1)

    def _restore(self, state):
        for done in reversed(checkpoint.complete_steps(self._directory)):
            path = checkpoint.step_path(self._directory, done)
            try:
                saved = checkpoint.read_tree(path, jax.eval_shape(lambda: state))
            except checkpoint.CorruptCheckpointError as error:
                print(f"warning: {error}; falling back to the one before")
                continue
            return jax.tree.map(jnp.asarray, saved), done
        return state, 0
