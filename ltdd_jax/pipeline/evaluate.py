"""Stage `evaluate`: fresh networks on every row, rates of real images chosen on held-out ones."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax import config as configs
from ltdd_jax.data import disk_images, long_tail
from ltdd_jax.evaluate import metrics
from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.pipeline import health, loop
from ltdd_jax.pipeline import rows as rows_of
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import checkpoint, files, mesh, processes
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import UserError

_CALLS = 40  # compiled calls per training run: each is a chance to show progress and to stop
_HASH_DIGITS = 8
_RATES = "-rates-"  # in the directory of a training that only judges rates
_HELD_OUT = 1  # keeps the split apart from others of the same seed
_PROTOCOL = ("num_seeds", "batch_size", "momentum", "weight_decay")


def run_evaluate(run: Run) -> tuple[dict[str, dict[str, Any]], list[list[int]] | None]:
    """Evaluates every row that is not finished yet.

    Returns:
      The summary of each row, by name, and the confusions [K, K] of the distilled set, summed over
      the networks (rows are true classes); None where they were not counted.

    Raises:
      UserError: a full disk, or numbers that went wrong.
      Interrupted: stopped by a signal, with everything saved.
    """
    rows = rows_of.make_rows(run)
    trainers = _Trainers(run)
    found: dict[str, dict[str, Any]] = {}
    for row in rows_of.order_for_rates(rows):
        rate = found[row.rate_of]["rate"] if row.rate_of else row.rate
        found[row.name] = _evaluate_row(run, trainers, row, rate)
    summaries = {row.name: _summarize(run, row, found[row.name]) for row in rows}
    return summaries, found["distilled"].get("confusion")


def identify(run: Run, row: Row, rate: float | None) -> dict[str, Any]:
    """What makes the result of a row what it is."""
    made_by = ["seed", "data", "net", "augment", "runtime.precision"]
    made_by += [f"evaluation.{name}" for name in _PROTOCOL]
    if rate is None:
        made_by += [f"evaluation.{x}" for x in ("baseline_rates", "held_out", "tuning_epochs")]
    return configs.identity(run.config, made_by) | {
        "data_fingerprint": run.problem.fingerprint,
        "row": {
            "name": row.name,
            "made_of": row.made_of,
            "num_epochs": row.num_epochs,
            "rate": rate,
        },
    }


def _evaluate_row(run, trainers, row, rate):
    """Accuracies of a row with the rate that was used, from its file if they are there."""
    identity = identify(run, row, rate)
    name = f"{row.name}-{configs.identity_hash(identity)[:_HASH_DIGITS]}"
    directory = run.workspace.baselines if row.is_shared else run.workspace.evaluate
    path = directory / f"{name}.json"
    networks = directory / "networks" / name
    found = processes.first_then_rest(lambda: run.workspace.read_or_set_aside(path))
    lacks_networks = processes.first_then_rest(
        lambda: run.config.evaluation.keep_networks and not checkpoint.is_complete(networks)
    )
    is_same = found is not None and found["identity"] == identity
    if not is_same or lacks_networks:
        trainer = trainers.get(row)
        tuning: dict[str, float] = {}
        if is_same:
            rate, tuning = found["rate"], found["tuning"]
        elif rate is None:
            rate, tuning = _choose_rate(run, trainers, row, directory / name)
        job = _Job(directory / name, row.title, row.key(run.config.seed), {"identity": identity})
        rates = np.full(run.config.evaluation.num_seeds, rate)
        state = trainer.train(job, row.load(len(rates)), rates)
        predictions = trainers.predict(state, run.problem.test_images)
        labels, num_classes = run.problem.test.labels, run.problem.num_classes
        accuracies = metrics.per_class_accuracy(predictions, labels, num_classes)
        found = {
            "identity": identity,
            "per_seed_per_class": accuracies.tolist(),
            "rate": float(rate),
            "tuning": tuning,
        }
        if row.name == "distilled":  # of one row only: K² numbers
            found["confusion"] = metrics.count_confusions(predictions, labels, num_classes).tolist()
        if lacks_networks:
            with checkpoint.Writer() as writer:
                writer.save(networks, {"params": _cut(run, mesh.fetch(state.params))}, {})
        files.write_sealed(path, found)
        run.stop.agree()
        run.stop.raise_if_requested()
    for path in (directory / name, *directory.glob(f"{name}{_RATES}*")):
        loop.Checkpoints(path, run.workspace.warn).delete()
    return found


def _summarize(run, row, found):
    accuracies = np.asarray(found["per_seed_per_class"])
    test_counts = run.problem.test.class_counts()
    summary = metrics.summarize(accuracies, test_counts, np.asarray(run.problem.class_counts))
    batches = -(-row.num_rows // run.config.evaluation.batch_size)
    return summary | {
        "title": row.title,
        "rate": found["rate"],
        "tuning": found["tuning"],
        "num_epochs": row.num_epochs + 1,
        "updates": (row.num_epochs + 1) * batches,
        "images": row.num_rows,
        "images_stored": row.num_stored or row.num_rows,
        "images_seen": row.num_rows,
    }


def _choose_rate(run, trainers, row, directory):
    """The rate of the grid with the best balanced accuracy on held-out training images.

    A small set is trained with every seed at every rate, the whole training set once at every
    rate, all of the networks that run together at another rate or seed.
    """
    settings, problem = run.config.evaluation, run.problem
    grid = [float(rate) for rate in settings.baseline_rates]
    kept, held = long_tail.hold_out(
        (run.config.seed, _HELD_OUT), problem.train.labels, settings.held_out
    )
    if len(grid) == 1 or not len(held):
        return grid[0], {}
    width = settings.num_seeds
    seeds = width if row.per_network else 1
    lanes = [(rate, seed) for rate in grid for seed in range(seeds)]
    trainer = trainers.get(row, settings.tuning_epochs)
    images, labels = row.load_kept(kept, width)
    scores: dict[float, list[float]] = {rate: [] for rate in grid}
    for begin in range(0, len(lanes), width):
        chosen = (lanes[begin : begin + width] * width)[:width]  # padded by repetition
        places = [seed for _, seed in chosen]
        data = (images[places], labels[places]) if row.per_network else (images, labels)
        rates = np.array([rate for rate, _ in chosen])
        job = _Job(
            directory.parent / f"{directory.name}{_RATES}{begin:04d}",
            f"{row.title}: rates {', '.join(f'{x:g}' for x in sorted(set(rates.tolist())))}",
            row.key(run.config.seed),
            {"rates": rates.tolist(), "seeds": places},
            seeds=tuple(places),
            may_fail=True,
        )
        state = trainer.train(job, data, rates)
        predictions = trainers.predict(state, disk_images.take(problem.train_images, held))
        for lane, (rate, _) in enumerate(lanes[begin : begin + width]):
            score = _balanced(predictions[lane], problem.train.labels[held])
            scores[rate].append(score)
    means = {rate: float(np.mean(values)) for rate, values in scores.items()}
    best = max(grid, key=lambda rate: (means[rate], -rate))
    return best, {f"{rate:g}": mean for rate, mean in means.items()}


def _balanced(predictions, labels):
    """Mean over the classes that occur of the share predicted correctly, in percent."""
    return 100 * float(
        np.mean([np.mean(predictions[labels == label] == label) for label in np.unique(labels)])
    )


def _cut(run, tree):
    """Without padding networks: their number depends on the devices."""
    return jax.tree.map(lambda x: x[: run.config.evaluation.num_seeds], tree)


class _Job:
    """One training of several networks: its directory, its random numbers, what it is of.

    Args:
      directory: of its checkpoints.
      title: for the progress bar.
      key: root of the random numbers.
      made_of: to what its checkpoints belong.
      seeds: of each network; 0, 1, 2, ... if None.
      may_fail: whether numbers that go wrong are left to the caller, as while rates are compared.
        The last state is saved too, since the comparison may be stopped after this training.
    """

    def __init__(self, directory, title, key, made_of, seeds=None, may_fail=False):
        self.directory, self.title, self.key, self.made_of = directory, title, key, made_of
        self.seeds, self.may_fail = seeds, may_fail


class _Trainers:
    """Compiled functions, shared by the rows of the same shape."""

    def __init__(self, run: Run):
        self._run = run
        self.devices = mesh.make_mesh(run.config.evaluation.num_seeds)
        self._made: dict[tuple, _Trainer] = {}
        self._init: Any = None
        self._predict: Any = None

    def get(self, row: Row, num_epochs: int = 0):
        """The trainer of a row; `num_epochs` 0 is the row's."""
        shape = (row.num_rows, num_epochs or row.num_epochs, row.per_network)
        if shape not in self._made:
            self._made[shape] = _Trainer(self._run, self.devices, *shape)
        trainer = self._made[shape]
        if self._predict is None:  # the same for every shape
            self._init = jax.jit(trainer.evaluator.init)
            self._predict = jax.jit(trainer.evaluator.predict)
        trainer.init = self._init
        return trainer

    def predict(self, state, images: np.ndarray) -> np.ndarray:
        """Classes int32 [E, N] of images [N, H, W, C], in blocks of one shape."""
        found = evaluation.predict_in_blocks(
            lambda block: mesh.fetch(self._predict(state, block)), images
        )
        return found[: self._run.config.evaluation.num_seeds]


class _Trainer:
    """Trains the networks of rows of one shape in pieces, with checkpoints between them."""

    def __init__(self, run: Run, devices, num_rows: int, num_epochs: int, per_network: bool):
        self._run, self._devices, self._per_network = run, devices, per_network
        self.init: Any = None  # compiled by `_Trainers`, the same for every shape
        settings = run.config.evaluation
        step_values = min(settings.batch_size, num_rows) * run.problem.network.sizes.largest_map
        self.evaluator = evaluation.make_evaluator(
            run.problem.network,
            run.problem.augment,
            num_rows=num_rows,
            num_epochs=num_epochs,
            batch_size=settings.batch_size,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            data_per_network=per_network,
            lanes=mesh.choose_lanes(step_values),
            spread=lambda function, axes: mesh.spread(function, axes, devices),
        )
        self._num_epochs, self._total = num_epochs, num_epochs + 1
        self._piece = -(-self._total // _CALLS)
        self._run_piece = jax.jit(functools.partial(_run_piece, self.evaluator))

    def train(self, job: _Job, data, rates: np.ndarray):
        """States of the trained networks, padded to the devices.

        Args:
          job: what is trained.
          data: images and label logits, with a leading axis of networks where each has its own.
          rates: [E], learning rate of each network.
        """
        run, num_seeds = self._run, len(rates)
        width = mesh.round_up(num_seeds, self._devices)
        lanes = np.minimum(np.arange(width), num_seeds - 1)  # padding repeats the last network
        seeds = np.arange(num_seeds) if job.seeds is None else np.asarray(job.seeds)
        keys = jax.vmap(lambda i: jax.random.fold_in(job.key, i))(jnp.asarray(seeds[lanes]))
        state = self.init(keys)
        checkpoints = loop.Checkpoints(job.directory, run.workspace.warn, job.made_of)
        found = checkpoints.restore(jax.eval_shape(lambda: _cut(run, state)))
        done = 0
        if found is not None:
            state, _, done = found
            state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[lanes]), state)
        schedule = np.stack([evaluation.learning_rates(rates[i], self._num_epochs) for i in lanes])
        keys, state = mesh.place((keys, state), self._devices, split=True)
        if self._per_network:
            data = jax.tree.map(lambda x: np.asarray(x)[lanes], data)
        data = mesh.place(jax.tree.map(jnp.asarray, data), self._devices, split=self._per_network)
        cadence = loop.Cadence(run.config.runtime, None, done)
        with (
            checkpoint.Writer() as writer,
            progress(self._total, initial=done, desc=job.title, unit="epoch") as show,
        ):

            def advance(done):
                nonlocal state
                epochs = np.arange(done, done + self._piece)
                active = epochs < self._total
                piece = mesh.place(
                    schedule[:, np.minimum(epochs, self._total - 1)], self._devices, split=True
                )
                state, losses = self._run_piece(
                    keys, epochs.astype(np.int32), state, data, piece, active
                )
                count = int(active.sum())
                loss = float(mesh.fetch(losses)[:, active].mean())
                if not job.may_fail:
                    _check(job, loss, state, done + count, rates)
                show(count, loss=loss)
                return count

            def save(done):
                checkpoints.save(writer, _cut(run, mesh.fetch(state)), done, {})

            loop.run_loop(
                run.stop, writer, cadence, done=done, total=self._total, advance=advance,
                save=save, save_last=job.may_fail,
            )  # fmt: skip
        return state


def _run_piece(evaluator, keys, epochs, state, data, rates, active):
    """Epochs that are not active (padding of the last piece) change nothing."""

    def one_epoch(state, epoch, rate):
        state, losses = evaluator.run_epochs(keys, epoch[None], state, data, rate[:, None])
        return state, losses[:, 0]

    def body(state, inputs):
        epoch, rate, is_active = inputs
        return jax.lax.cond(
            is_active,
            lambda s: one_epoch(s, epoch, rate),
            lambda s: (s, jnp.full(keys.shape, jnp.nan, jnp.float32)),
            state,
        )

    state, losses = jax.lax.scan(body, state, (epochs, rates.T, active))
    return state, losses.T


def _check(job, loss, state, done, rates):
    if not (np.isfinite(loss) and health.is_finite(state)):
        raise UserError(
            f"training on «{job.title}» went wrong before epoch {done}: its loss is {loss:g} and "
            f"its learning rates {sorted(set(rates.tolist()))}; real images take theirs from "
            "--config.evaluation.baseline_rates, a distilled set the one it has learned from "
            "--config.trajectory.initial_step_size on"
        )
