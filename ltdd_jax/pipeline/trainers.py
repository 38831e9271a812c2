"""Training of several networks at once on the data of a row, stopped and resumed at any point."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ltdd_jax.evaluate import train as evaluation
from ltdd_jax.pipeline import health, loop, protocols
from ltdd_jax.pipeline.rows import Row
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import checkpoint, mesh
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import UserError

_CALLS = 40  # compiled calls per training run: each is a chance to show progress and to stop


class Job:
    """One training of several networks: its directory, its random numbers, what it is of.

    Args:
      directory: of its checkpoints.
      title: for the progress bar.
      key: root of the random numbers.
      made_of: to what its checkpoints belong.
      seeds: of each network; 0, 1, 2, ... if None.
      may_fail: whether numbers that go wrong are left to the caller, as while rates are compared.
        The last state is saved too, since the comparison may be stopped after this training.
      remedy: what to change when they do, as part of a sentence.
    """

    def __init__(self, directory, title, key, made_of, seeds=None, may_fail=False, remedy=""):
        self.directory, self.title, self.key, self.made_of = directory, title, key, made_of
        self.seeds, self.may_fail, self.remedy = seeds, may_fail, remedy


class Trainers:
    """Compiled functions, shared by the rows of the same block and shape."""

    def __init__(self, run: Run):
        self._run = run
        self.devices = mesh.make_mesh(run.config.evaluation.num_seeds)
        self._made: dict[tuple, _Trainer] = {}
        self._init: dict[tuple, Callable] = {}
        self._predict: dict[tuple, Callable] = {}

    def get(self, row: Row, num_epochs: int = 0):
        """The trainer of a row; `num_epochs` 0 is the row's."""
        num_epochs = num_epochs or row.num_epochs
        kind = _name_kind(row)
        shape = (*kind, row.num_rows, num_epochs, row.per_network, row.num_views)
        if shape not in self._made:
            trainer = _Trainer(self._run, self.devices, self._make(row, num_epochs), row)
            evaluator = trainer.protocol.evaluator
            # The same for every shape.
            self._init.setdefault(kind, jax.jit(evaluator.init))
            self._predict.setdefault(kind, jax.jit(evaluator.predict))
            trainer.init = self._init[kind]
            self._made[shape] = trainer
        return self._made[shape]

    def _make(self, row, num_epochs):
        sizes = {"num_rows": row.num_rows, "num_epochs": num_epochs}
        if row.block == "i":
            return protocols.make_common(
                self._run,
                self.devices,
                per_network=row.per_network,
                network=row.network,
                optimizer=row.protocol,
                **sizes,
            )
        return protocols.make_taught(
            self._run, self.devices, row.find_teachers(), num_views=row.num_views, **sizes
        )

    def predict(self, row: Row, state, images: np.ndarray) -> np.ndarray:
        """Classes int32 [E, N] of images [N, H, W, C], in blocks of one shape."""
        found = evaluation.predict_in_blocks(
            lambda block: mesh.fetch(self._predict[_name_kind(row)](state, block)), images
        )
        return found[: self._run.config.evaluation.num_seeds]


class _Trainer:
    """Trains the networks of rows of one shape in pieces, with checkpoints between them."""

    def __init__(self, run: Run, devices, protocol: protocols.Protocol, row: Row):
        self._run, self._devices, self._per_network = run, devices, row.per_network
        self.protocol, self._total = protocol, protocol.num_epochs
        self.init: Any = None  # compiled by `Trainers`, the same for every shape
        self._piece = -(-self._total // _CALLS)
        self._run_piece = jax.jit(functools.partial(_run_piece, protocol.evaluator))

    def train(self, job: Job, data, rates: np.ndarray):
        """States of the trained networks, padded to the devices.

        Args:
          job: what is trained.
          data: as the row loads them, with a leading axis of networks where each has its own.
          rates: [E], learning rate of each network.
        """
        run, num_seeds = self._run, len(rates)
        width = mesh.round_up(num_seeds, self._devices)
        lanes = np.minimum(np.arange(width), num_seeds - 1)  # padding repeats the last network
        seeds = np.arange(num_seeds) if job.seeds is None else np.asarray(job.seeds)
        keys = jax.vmap(lambda i: jax.random.fold_in(job.key, i))(jnp.asarray(seeds[lanes]))
        state = self.init(keys)
        checkpoints = loop.Checkpoints(job.directory, run.workspace.warn, job.made_of)
        found = checkpoints.restore(jax.eval_shape(lambda: cut(state, num_seeds)))
        done = 0
        if found is not None:
            state, _, done = found
            state = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[lanes]), state)
        schedule = np.stack([self.protocol.schedule(rates[i]) for i in lanes])
        keys, state = mesh.place((keys, state), self._devices, split=True)
        data = self._place(data, lanes)
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
                checkpoints.save(writer, cut(mesh.fetch(state), num_seeds), done, {})

            loop.run_loop(
                run.stop, writer, cadence, done=done, total=self._total, advance=advance,
                save=save, save_last=job.may_fail,
            )  # fmt: skip
        return state

    def _place(self, data, lanes):
        """The data on the devices: what each network has split over them, the rest on each."""
        own, shared = data if self.protocol.has_shared else (data, None)
        if self._per_network:
            own = jax.tree.map(lambda x: np.asarray(x)[lanes], own)
        own = mesh.place(jax.tree.map(jnp.asarray, own), self._devices, split=self._per_network)
        if not self.protocol.has_shared:
            return own
        shared = jax.tree.map(jnp.asarray, shared)
        return own, mesh.place(shared, self._devices, split=False)


def _name_kind(row):
    """What the rows have in common whose networks start and predict alike."""
    return row.block, row.network, row.protocol


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
            f"its learning rates {sorted(set(rates.tolist()))}; {job.remedy}"
        )


def cut(tree, num_networks: int):
    """The first networks, without those that pad them to the devices."""
    return jax.tree.map(lambda x: x[:num_networks], tree)
