"""Stage `experts`: trains what is missing of both kinds of experts, group by group."""

import contextlib
import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import backend, training
from ltdd_jax import config as configs
from ltdd_jax.data import normalize
from ltdd_jax.experts import train as expert_training
from ltdd_jax.experts import trajectory
from ltdd_jax.experts.trajectory import Trajectories
from ltdd_jax.nets import partition
from ltdd_jax.pipeline import health
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, mesh, prng, processes
from ltdd_jax.runtime.interrupt import StopRequest
from ltdd_jax.runtime.progress import progress
from ltdd_jax.types import UserError

STAGES = ("representation", "classifier")


def open_trajectories(config: ConfigDict, problem: Problem, workspace: Workspace, stage: str):
    """The trajectories of `stage`; refuses those that other settings made."""
    made_by = ["seed", "data", "net", "augment", "runtime.precision"]
    made_by += [f"experts.{name}" for name in STAGES[: STAGES.index(stage) + 1]]
    identity = configs.identity(config, made_by) | {"data_fingerprint": problem.fingerprint}
    return Trajectories(
        workspace.experts / stage,
        identity,
        config.experts[stage].num_epochs,
        cache_bytes=config.runtime.snapshot_cache_mb * 2**20,
    )


def require_complete(trajectories: Trajectories, num_experts: int, stage: str) -> None:
    """Raises UserError unless experts 0..num_experts-1 are all finished."""
    missing = sorted(set(range(num_experts)) - set(trajectories.complete_experts()))
    if missing:
        raise UserError(
            f"{len(missing)} of {num_experts} {stage} experts are missing (first: "
            f"{missing[0]}); run --stage=experts with the same --workdir"
        )


def run_experts(
    config: ConfigDict, problem: Problem, workspace: Workspace, stop: StopRequest
) -> None:
    """Trains all experts that are not on disk yet, both stages, and logs their losses.

    A damaged part is moved aside, with what builds on it, and trained again.

    Raises:
      UserError: trajectories of other settings, another process that writes them, a full disk,
        or numbers that went wrong.
      Interrupted: stopped by a signal, with everything saved.
    """
    while True:
        try:
            for stage in STAGES:
                if not _is_complete(config, problem, workspace, stage):
                    with _sole_writer(workspace):
                        _train_missing(config, problem, workspace, stage, stop)
                _log_losses(config, problem, workspace, stage)
            return
        except trajectory.DamagedSegmentError as error:
            repair(workspace, error)


def repair(workspace: Workspace, error: trajectory.DamagedSegmentError) -> None:
    """Moves a damaged segment aside, so that `run_experts` trains it again.

    Raises:
      UserError: another process writes these trajectories.
    """

    def move():
        moved = ", ".join(path.name for path in trajectory.set_aside(error.path))
        workspace.warn(f"{error}; moved to {moved}, to be trained again")

    with _sole_writer(workspace):
        if processes.is_first():
            move()
        processes.meet("repaired")


def _sole_writer(workspace):
    inside = workspace.root in workspace.experts.parents  # then the lock of the run is enough
    return (
        contextlib.nullcontext()
        if inside or not processes.is_first()
        else (workspace.hold_experts())
    )


def _is_complete(config, problem, workspace, stage):
    found = open_trajectories(config, problem, workspace, stage)
    there = set(found.complete_experts()) & set(range(config.experts.num_experts))
    processes.say(f"{stage} experts: {len(there)} of {config.experts.num_experts} are there")
    processes.meet("opened")  # before anybody adds to it
    return len(there) == config.experts.num_experts


def _train_missing(config, problem, workspace, stage, stop):
    if processes.is_first():
        trajectory.delete_unfinished(workspace.experts / stage)
    trajectories = open_trajectories(config, problem, workspace, stage)
    groups = plan_groups(config, problem, trajectories)
    processes.meet("planned")
    end = trajectories.num_epochs
    total = sum(len(group.experts) * (end - max(group.last_epoch, 0)) for group in groups)
    trainers = {}  # one width, one compiled program
    with (
        checkpoint.Writer() as writer,
        progress(total, desc=f"{stage} experts", unit="epoch", enabled=processes.is_first()) as bar,
    ):
        for group in groups:
            if group.width not in trainers:
                trainers[group.width] = _GroupTrainer(
                    config, problem, workspace, stage, stop, group.width
                )
            trainers[group.width].train(group, trajectories, writer, bar)


def _log_losses(config, problem, workspace, stage):
    """One line per epoch over all experts, whatever the order in which they were trained."""
    found = open_trajectories(config, problem, workspace, stage)
    losses = found.losses(config.experts.num_experts)
    rows = [
        (epoch, {"loss": row.mean(), "loss_min": row.min(), "loss_max": row.max()})
        for epoch, row in enumerate(losses, 1)
    ]
    workspace.metrics.replace(stage, rows)


def plan_groups(
    config: ConfigDict, problem: Problem, trajectories: Trajectories
) -> list[trajectory.Group]:
    """Every group still to be trained, with its width.

    A group that was begun keeps its members and its width, because the last digits of a result
    depend on how many experts are computed together; the rest is cut into groups of the
    configured size, or of that of the groups that are there.
    """
    num_experts = config.experts.num_experts
    begun = trajectories.groups()
    widths = [group.width for group in begun if group.width]
    size = config.runtime.expert_group_size or (
        max(widths) if widths else processes.choose_on_first(lambda: group_size(config, problem))
    )
    groups = [
        dataclasses.replace(group, width=group.width or max(size, len(group.experts)))
        for group in begun
        if group.last_epoch < trajectories.num_epochs and group.experts.start < num_experts
    ]
    taken = {expert for group in begun for expert in group.experts}
    new: list[range] = []
    run: list[int] = []
    for expert in range(num_experts + 1):
        if expert < num_experts and expert not in taken:
            run.append(expert)
        if run and (len(run) == size or expert in taken or expert == num_experts):
            new.append(range(run[0], run[-1] + 1))
            run = []
    width = max(widths, default=max(map(len, new), default=0))
    return groups + [trajectory.Group(experts, -1, max(width, len(experts))) for experts in new]


def group_size(config: ConfigDict, problem: Problem) -> int:
    """Experts trained at once, as configured or as many as fit."""
    return config.runtime.expert_group_size or mesh.choose_group_size(
        config.experts.num_experts, expert_bytes(config, problem)
    )


def expert_bytes(config: ConfigDict, problem: Problem) -> int:
    """Estimate of the memory one expert needs in training: the activations of one batch."""
    height, width, _ = problem.image_shape
    batch = min(config.experts.representation.batch_size, len(problem.train.labels))
    maps = sum(4.0**-i for i in range(config.net.depth)) * height * width * config.net.width
    patches = 9 * maps / 4
    return int(4 * batch * (6 * maps + 2 * patches))


@dataclasses.dataclass
class _GroupTrainer:
    """Trains groups of experts of one stage; every group has the same padded width."""

    config: ConfigDict
    problem: Problem
    workspace: Workspace
    stage: str
    stop: StopRequest
    width: int

    def __post_init__(self):
        config, problem = self.config, self.problem
        fields = {f.name for f in dataclasses.fields(expert_training.Recipe)}
        section = config.experts[self.stage]
        recipe = expert_training.Recipe(**{k: v for k, v in section.items() if k in fields})
        if self.stage == "representation":
            self.expert = expert_training.make_representation_expert(
                problem.network, recipe, problem.augment, len(problem.train.labels)
            )
        else:
            self.expert = expert_training.make_classifier_expert(
                problem.network,
                recipe,
                problem.augment,
                problem.class_counts,
                group_images=section.group_images,
                max_norm=section.max_norm,
                max_norm_threshold=section.max_norm_threshold,
            )
        self.devices = mesh.make_mesh(self.width)
        data = (_training_images(config, problem), problem.train.labels)
        self.data = mesh.place(data, self.devices, split=False)
        # In turn: random numbers for many at once take the compiler twice as long.
        self.init = jax.jit(training.vectorize(self.expert.init, (0, 0), 1))
        height, width, _ = problem.image_shape
        lanes = mesh.choose_lanes(section.batch_size * height * width * config.net.width)
        axes = (0, None, 0, 0, None)
        epoch = training.vectorize(self.expert.run_epoch, axes, lanes)
        self.run_epoch = jax.jit(mesh.spread(epoch, axes, self.devices))

    def train(self, group: trajectory.Group, trajectories: Trajectories, writer, bar) -> None:
        """Trains `group` from its last epoch on disk to the end, saving on the way.

        The snapshot of an epoch leaves the devices while they compute the next.
        """
        experts, done = group.experts, group.last_epoch
        # Every group has the same shape, and each device the same share of it.
        width = mesh.round_up(group.width, self.devices)
        padded = list(experts) + [experts[-1]] * (width - len(experts))
        root = prng.stream_key(self.config.seed, self.stage)
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(padded))
        state, frozen = self.init(keys, self._sources(padded))
        segment = _Segment(self.config.runtime)
        if done < 0:
            segment.snapshots[0] = self._cut(mesh.fetch(state.params), len(experts))
            done = 0
        else:
            like = jax.eval_shape(lambda s: self._cut(s, len(experts)), state)
            saved = trajectories.read_state(experts, like)
            state = jax.tree.map(lambda x: jnp.asarray(_pad(x, width)), saved)
        keys, state, frozen = mesh.place((keys, state, frozen), self.devices, split=True)
        running = None
        for epoch in range(done, self.expert.num_epochs):
            state, loss = self.run_epoch(keys, np.int32(epoch), state, frozen, self.data)
            leaving = mesh.start_fetch((state.params, loss))
            if running is not None:
                self._finish(group, segment, *running, bar)
            running = epoch, leaving
            last = epoch + 1 == self.expert.num_epochs
            if self.stop.agree(last, segment.is_due(len(segment.losses) + 1)):
                self._finish(group, segment, *running, bar)
                running = None
                cut = self._cut(mesh.fetch(state), len(experts))
                trajectories.append(writer, group, segment.snapshots, cut, segment.losses)
                segment = _Segment(self.config.runtime)
            if self.stop.requested:
                writer.wait()
                self.stop.raise_if_requested()

    def _finish(self, group, segment, epoch, leaving, bar):
        """Waits for what an epoch has left, checks it and adds it to the segment."""
        count = len(group.experts)
        params, loss = self._cut(mesh.fetch(leaving), count)
        segment.snapshots[epoch + 1] = params
        segment.losses.append(loss)
        self._check(group.experts, epoch, segment)
        bar(count, loss=float(loss.mean()))

    def _sources(self, experts):
        """Final representation snapshots, stacked, for classifier experts; {} otherwise."""
        if self.stage == "representation":
            return {}
        before = open_trajectories(self.config, self.problem, self.workspace, "representation")
        like = jax.eval_shape(self.problem.network.init, jax.random.key(0))
        found = [before.read(expert, -1, like) for expert in experts]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def _check(self, experts, epoch, segment):
        """Refuses numbers that went wrong before they are saved."""
        losses, snapshot = segment.losses[-1], segment.snapshots[epoch + 1]
        bad = np.flatnonzero(~np.isfinite(losses))
        if not bad.size and health.is_finite(snapshot):
            return
        which = f"expert {experts[bad[0]]}" if bad.size else f"experts {experts}"
        what = f"has the loss {losses[bad[0]]}" if bad.size else "have weights that are not finite"
        raise UserError(
            f"training went wrong: {self.stage} {which} {what} after epoch {epoch + 1}; lower "
            f"--config.experts.{self.stage}.learning_rate or "
            f"--config.experts.{self.stage}.rho (another --workdir); epoch "
            f"{min(segment.snapshots) - 1} is the last that was saved"
        )

    @staticmethod
    def _cut(tree, count):
        return jax.tree.map(lambda x: x[:count], tree)


def _training_images(config, problem):
    """The training images in the form in which they lie on the device."""
    storage = config.runtime.image_storage
    if storage == "auto":
        storage = "float32" if backend.is_cpu() else "uint8"
    if storage == "float32":
        return problem.train_images
    return normalize.StoredImages(problem.train.images, problem.preprocessing)


class _Segment:
    """Epochs finished since the last save."""

    def __init__(self, runtime):
        self.snapshots = {}
        self.losses = []
        self._epochs = runtime.checkpoint_epochs
        self._deadline = time.monotonic() + 60 * (runtime.checkpoint_minutes or float("inf"))

    def is_due(self, epochs: int) -> bool:
        return epochs >= self._epochs or time.monotonic() > self._deadline


def _pad(array, width):
    return np.concatenate([array, np.repeat(array[-1:], width - len(array), axis=0)])


def read_classifier_expert(
    representation: Trajectories, classifier: Trajectories, expert: int, epoch: int, like
):
    """All parameters of a classifier expert: its classifier on the frozen backbone."""
    like_backbone, like_classifier = partition.split(like)
    del like_backbone
    backbone, _ = partition.split(representation.read(expert, -1, like))
    return partition.merge(backbone, classifier.read(expert, epoch, like_classifier))
