"""Stage `experts`: trains what is missing of each kind of experts, group by group."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import backend, training
from ltdd_jax import config as configs
from ltdd_jax.data import normalize, streamed
from ltdd_jax.data.disk_images import DiskImages
from ltdd_jax.experts import train as expert_training
from ltdd_jax.experts import trajectory
from ltdd_jax.experts.trajectory import Trajectories
from ltdd_jax.nets import partition
from ltdd_jax.pipeline import health, loop
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, mesh, prng, processes
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import Params, UserError

KINDS = ("representation", "classifier")  # each starts where the one before has ended
_HASH_DIGITS = 8


def identify(run: Run, kind: str) -> dict:
    """What makes the experts of `kind` what they are."""
    made_by = ["seed", "data", "net", "augment", "runtime.precision"]
    made_by += [f"experts.{name}" for name in KINDS[: KINDS.index(kind) + 1]]
    found = configs.identity(run.config, made_by)
    return found | {"data_fingerprint": run.problem.fingerprint}


def name_directory(run: Run, kind: str) -> str:
    """Where experts of this identity lie, below the directory of all experts."""
    return f"{kind}-{configs.identity_hash(identify(run, kind))[:_HASH_DIGITS]}"


def open_trajectories(run: Run, kind: str) -> Trajectories:
    """The trajectories of `kind` that the settings of this run make."""
    return Trajectories(
        run.workspace.experts / name_directory(run, kind),
        identify(run, kind),
        run.config.experts[kind].num_epochs,
        cache_bytes=run.config.runtime.snapshot_cache_mb * 2**20,
    )


def require_complete(trajectories: Trajectories, num_experts: int, kind: str) -> None:
    """Raises UserError unless experts 0..num_experts-1 are all finished."""
    missing = sorted(set(range(num_experts)) - set(trajectories.complete_experts()))
    if missing:
        raise UserError(
            f"{len(missing)} of {num_experts} {kind} experts are missing (first: "
            f"{missing[0]}); run --stage=experts with the same --workdir"
        )


class Snapshots:
    """Single snapshots of all kinds of experts, opened when they are first asked for."""

    def __init__(self, run: Run):
        self._run = run
        self._opened: dict[str, Trajectories] = {}
        self._like = jax.eval_shape(run.problem.network.init, jax.random.key(0))

    def read(self, kind: str, expert: int, epoch: int) -> Params:
        """All parameters of an expert of `kind` at `epoch` (-1: the last).

        A classifier expert is its classifier on the last backbone of its representation expert.

        Raises:
          UserError: experts are missing.
          trajectory.DamagedSegmentError: the snapshot is damaged.
        """
        if kind == "representation":
            return self._open(kind).read(expert, epoch, self._like)
        _, like_classifier = partition.split(self._like)
        backbone, _ = partition.split(self.read("representation", expert, -1))
        return partition.merge(backbone, self._open(kind).read(expert, epoch, like_classifier))

    def _open(self, kind):
        if kind not in self._opened:
            found = open_trajectories(self._run, kind)
            require_complete(found, self._run.config.experts.num_experts, kind)
            self._opened[kind] = found
        return self._opened[kind]


def run_experts(run: Run, kinds: tuple[str, ...]) -> None:
    """Trains all experts of `kinds` that are not on disk yet, and logs their losses.

    A damaged part is moved aside, with what builds on it, and trained again.

    Raises:
      UserError: another process writes these trajectories, a full disk, or numbers that went
        wrong.
      Interrupted: stopped by a signal, with everything saved.
    """
    while True:
        try:
            for kind in kinds:
                if not _is_complete(run, kind):
                    with sole_writer(run.workspace):
                        _train_missing(run, kind)
                _log_losses(run, kind)
            return
        except trajectory.DamagedSegmentError as error:
            repair(run, error)


def repair(run: Run, error: trajectory.DamagedSegmentError) -> None:
    """Moves a damaged segment aside, so that `run_experts` trains it again.

    Raises:
      UserError: another process writes these trajectories.
    """

    def move():
        moved = ", ".join(path.name for path in trajectory.set_aside(error.path))
        run.workspace.warn(f"{error}; moved to {moved}, to be trained again")

    with sole_writer(run.workspace):
        if processes.is_first():
            move()
        processes.meet("repaired")


def sole_writer(workspace: Workspace):
    """Holds the directory of the experts against other runs; a context manager.

    Experts inside the workdir too: another run may be given them as its experts.path, and knows
    nothing of the lock of this one.

    Raises (on entry):
      UserError: another process holds it, or its lock cannot be written.
    """
    held = workspace.experts == workspace.root  # by the lock of this run, which is the same file
    if held or not processes.is_first():
        return contextlib.nullcontext()
    return workspace.hold_experts()


def _is_complete(run, kind):
    found = open_trajectories(run, kind)
    num_experts = run.config.experts.num_experts
    there = set(found.complete_experts()) & set(range(num_experts))
    processes.say(f"{kind} experts: {len(there)} of {num_experts} are there")
    processes.meet("opened")  # before anybody adds to it
    return len(there) == num_experts


def _train_missing(run, kind):
    if processes.is_first():
        trajectory.delete_unfinished(run.workspace.experts / name_directory(run, kind))
    trajectories = open_trajectories(run, kind)
    groups = plan_groups(run, trajectories)
    processes.meet("planned")
    end = trajectories.num_epochs
    total = sum(len(group.experts) * (end - max(group.last_epoch, 0)) for group in groups)
    trainers = {}  # one width, one compiled program
    with (
        checkpoint.Writer() as writer,
        progress(total, desc=f"{kind} experts", unit="epoch") as bar,
    ):
        for group in groups:
            if group.width not in trainers:
                trainers[group.width] = _GroupTrainer(run, kind, group.width)
            trainers[group.width].train(group, trajectories, writer, bar)


def _log_losses(run, kind):
    """One line per epoch over all experts, whatever the order in which they were trained."""
    losses = open_trajectories(run, kind).losses(run.config.experts.num_experts)
    rows = [
        (epoch, {"loss": row.mean(), "loss_min": row.min(), "loss_max": row.max()})
        for epoch, row in enumerate(losses, 1)
    ]
    run.workspace.expert_metrics.replace(kind, rows)
    run.workspace.expert_events.replace(kind, rows)


def plan_groups(run: Run, trajectories: Trajectories) -> list[trajectory.Group]:
    """Every group still to be trained, with its width.

    A group that was begun keeps its members and its width, because the last digits of a result
    depend on how many experts are computed together; the rest is cut into groups of the
    configured size, or of that of the groups that are there.
    """
    num_experts = run.config.experts.num_experts
    begun = trajectories.groups()
    widths = [group.width for group in begun if group.width]
    size = run.config.runtime.expert_group_size or (
        max(widths) if widths else processes.choose_on_first(lambda: group_size(run))
    )
    groups = [
        dataclasses.replace(group, width=group.width or max(size, len(group.experts)))
        for group in begun
        if group.last_epoch < trajectories.num_epochs and group.experts.start < num_experts
    ]
    taken = {expert for group in begun for expert in group.experts}
    new: list[range] = []
    free: list[int] = []
    for expert in range(num_experts + 1):
        if expert < num_experts and expert not in taken:
            free.append(expert)
        if free and (len(free) == size or expert in taken or expert == num_experts):
            new.append(range(free[0], free[-1] + 1))
            free = []
    width = max(widths, default=max(map(len, new), default=0))
    return groups + [trajectory.Group(experts, -1, max(width, len(experts))) for experts in new]


def group_size(run: Run) -> int:
    """Experts trained at once, as configured or as many as fit."""
    return run.config.runtime.expert_group_size or mesh.choose_group_size(
        run.config.experts.num_experts, expert_bytes(run)
    )


def expert_bytes(run: Run) -> int:
    """Estimate of the memory one expert needs in training."""
    batch = min(run.config.experts.representation.batch_size, len(run.problem.train.labels))
    return run.problem.network.sizes.training_bytes(batch)


@dataclasses.dataclass
class _GroupTrainer:
    """Trains groups of experts of one kind; every group has the same padded width."""

    run: Run
    kind: str
    width: int

    def __post_init__(self):
        config, problem = self.run.config, self.run.problem
        self.expert = make_expert(self.run, self.kind)
        self.devices = mesh.make_mesh(self.width)
        data = (training_images(config, problem), problem.train.labels)
        self.data = mesh.place(data, self.devices, split=False)
        # In turn: random numbers for many at once take the compiler twice as long.
        self.init = jax.jit(training.vectorize(self.expert.init, (0, 0), 1))
        batch_size = config.experts[self.kind].batch_size
        lanes = mesh.choose_lanes(batch_size * problem.network.sizes.largest_map)
        axes = (0, None, 0, 0, None)
        epoch = training.vectorize(self.expert.run_epoch, axes, lanes)
        self.run_epoch = jax.jit(mesh.spread(epoch, axes, self.devices))

    def train(self, group: trajectory.Group, trajectories: Trajectories, writer, bar) -> None:
        """Trains `group` from its last epoch on disk to the end, saving on the way.

        The snapshot of an epoch leaves the devices while they compute the next.
        """
        begun = _Begun(group, self.kind, bar)
        keys, state, frozen, done = self._start(group, trajectories, begun)

        def advance(done):
            nonlocal state
            state, loss = self.run_epoch(keys, np.int32(done), state, frozen, self.data)
            leaving = mesh.start_fetch((state.params, loss))
            begun.finish()
            begun.running = done, leaving
            return 1

        def save(done):
            del done
            begun.finish()
            cut = _cut(mesh.fetch(state), len(group.experts))
            trajectories.append(writer, group, begun.snapshots, cut, begun.losses)
            begun.snapshots, begun.losses = {}, []

        runtime = self.run.config.runtime
        loop.run_loop(
            self.run.stop,
            writer,
            loop.Cadence(runtime, runtime.checkpoint_epochs, done),
            done=done,
            total=self.expert.num_epochs,
            advance=advance,
            save=save,
            save_last=True,
        )
        if self.run.stop.requested:
            writer.wait()
            self.run.stop.raise_if_requested()

    def _start(self, group, trajectories, begun):
        """Keys, state and frozen parameters on the devices, and the epochs done."""
        experts, done = group.experts, group.last_epoch
        # Every group has the same shape, and each device the same share of it.
        width = mesh.round_up(group.width, self.devices)
        padded = list(experts) + [experts[-1]] * (width - len(experts))
        root = prng.stream_key(self.run.config.seed, self.kind)
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(padded))
        state, frozen = self.init(keys, _read_sources(self.run, self.kind, padded))
        if done < 0:
            begun.snapshots[0] = _cut(mesh.fetch(state.params), len(experts))
            done = 0
        else:
            like = jax.eval_shape(lambda s: _cut(s, len(experts)), state)
            saved = trajectories.read_state(experts, like)
            state = jax.tree.map(lambda x: jnp.asarray(_pad(x, width)), saved)
        keys, state, frozen = mesh.place((keys, state, frozen), self.devices, split=True)
        return keys, state, frozen, done


def _read_sources(run, kind, experts):
    """Final representation snapshots, stacked, for classifier experts; {} otherwise."""
    if kind == "representation":
        return {}
    snapshots = Snapshots(run)
    found = [snapshots.read("representation", expert, -1) for expert in experts]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)


class _Begun:
    """Epochs of a group that are finished since the last save, and the one that is running."""

    def __init__(self, group: trajectory.Group, kind: str, bar):
        self._experts, self._kind, self._bar = group.experts, kind, bar
        self.snapshots: dict[int, Params] = {}
        self.losses: list[np.ndarray] = []
        self.running = None

    def finish(self) -> None:
        """Waits for what the running epoch has left, checks it and adds it to the rest."""
        if self.running is None:
            return
        (epoch, leaving), self.running = self.running, None
        count = len(self._experts)
        params, loss = _cut(mesh.fetch(leaving), count)
        self.snapshots[epoch + 1] = params
        self.losses.append(loss)
        self._check(epoch)
        self._bar(count, loss=float(loss.mean()))

    def _check(self, epoch):
        """Refuses numbers that went wrong before they are saved."""
        losses, snapshot = self.losses[-1], self.snapshots[epoch + 1]
        bad = np.flatnonzero(~np.isfinite(losses))
        if not bad.size and health.is_finite(snapshot):
            return
        which = f"expert {self._experts[bad[0]]}" if bad.size else f"experts {self._experts}"
        what = f"has the loss {losses[bad[0]]}" if bad.size else "have weights that are not finite"
        saved = min(self.snapshots) - 1
        raise UserError(
            f"training went wrong: {self._kind} {which} {what} after epoch {epoch + 1}; lower "
            f"--config.experts.{self._kind}.learning_rate or "
            f"--config.experts.{self._kind}.rho; "
            + (f"epoch {saved} is the last that was saved" if saved >= 0 else "nothing was saved")
        )


def make_expert(run: Run, kind: str) -> expert_training.Expert:
    """The pure functions that train one expert of `kind`."""
    config, problem = run.config, run.problem
    fields = {f.name for f in dataclasses.fields(expert_training.Recipe)}
    section = config.experts[kind]
    recipe = expert_training.Recipe(**{k: v for k, v in section.items() if k in fields})
    if kind == "representation":
        return expert_training.make_representation_expert(
            problem.network, recipe, problem.augment, len(problem.train.labels)
        )
    return expert_training.make_classifier_expert(
        problem.network,
        recipe,
        problem.augment,
        problem.class_counts,
        group_images=section.group_images,
        max_norm=section.max_norm,
        max_norm_threshold=section.max_norm_threshold,
    )


def _cut(tree, count):
    return jax.tree.map(lambda x: x[:count], tree)


def training_images(config: ConfigDict, problem: Problem):
    """The training images in the form in which a program on the device takes their rows."""
    if isinstance(problem.train.images, DiskImages):
        return streamed.StreamedImages(problem.preprocessing, problem.train.images)
    storage = config.runtime.image_storage
    if storage == "auto":
        storage = "float32" if backend.is_cpu() else "uint8"
    if storage == "float32":
        return problem.train_images
    return normalize.StoredImages(problem.train.images, problem.preprocessing)


def _pad(array, width):
    return np.concatenate([array, np.repeat(array[-1:], width - len(array), axis=0)])
