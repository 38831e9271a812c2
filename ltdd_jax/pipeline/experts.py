"""Stage `experts`: trains what is missing of both kinds of experts, group by group."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax import config as configs
from ltdd_jax.experts import train as expert_training
from ltdd_jax.experts.trajectory import Trajectories
from ltdd_jax.nets import partition
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import checkpoint, mesh, prng
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
    """Trains all experts that are not on disk yet; both stages."""
    for stage in STAGES:
        trajectories = open_trajectories(config, problem, workspace, stage)
        groups = plan_groups(config, problem, trajectories)
        end = config.experts[stage].num_epochs
        total = sum(len(experts) * (end - max(done, 0)) for experts, done in groups)
        finished = len(
            set(trajectories.complete_experts()) & set(range(config.experts.num_experts))
        )
        print(f"{stage} experts: {finished} of {config.experts.num_experts} are there")
        if not groups:
            continue
        trainer = _GroupTrainer(config, problem, workspace, stage, trajectories, stop)
        trainer.width = max(len(experts) for experts, _ in groups)
        with (
            checkpoint.Writer() as writer,
            progress(total, desc=f"{stage} experts", unit="epoch") as bar,
        ):
            for experts, done in groups:
                trainer.train(experts, done, writer, bar)


def plan_groups(
    config: ConfigDict, problem: Problem, trajectories: Trajectories
) -> list[tuple[range, int]]:
    """(experts, epochs on disk) of every group still to be trained.

    A group that was begun keeps its members; the rest is cut into groups of the configured size.
    """
    num_experts = config.experts.num_experts
    begun = trajectories.groups()
    groups = [
        (experts, end)
        for experts, end in begun
        if end < trajectories.num_epochs and experts.start < num_experts
    ]
    taken = {expert for experts, _ in begun for expert in experts}
    size = config.runtime.expert_group_size or mesh.choose_group_size(
        num_experts, expert_bytes(config, problem)
    )
    run: list[int] = []
    for expert in range(num_experts + 1):
        if expert < num_experts and expert not in taken:
            run.append(expert)
        if run and (len(run) == size or expert in taken or expert == num_experts):
            groups.append((range(run[0], run[-1] + 1), -1))
            run = []
    return groups


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
    trajectories: Trajectories
    stop: StopRequest
    width: int = 1

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
        self.data = (jnp.asarray(problem.train_images), jnp.asarray(problem.train.labels))
        self.init = jax.jit(jax.vmap(self.expert.init))
        self.run_epoch = jax.jit(jax.vmap(self.expert.run_epoch, in_axes=(0, None, 0, 0, None)))

    def train(self, experts: range, done: int, writer: checkpoint.Writer, bar) -> None:
        """Trains `experts` from epoch `done` (-1: not begun) to the end, saving on the way."""
        padded = list(experts) + [experts[-1]] * (self.width - len(experts))
        root = prng.stream_key(self.config.seed, self.stage)
        keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(padded))
        state, frozen = self.init(keys, self._sources(padded))
        segment = _Segment(self.config.runtime)
        if done < 0:
            segment.snapshots[0] = self._to_host(state.params, len(experts))
            done = 0
        else:
            like = jax.eval_shape(lambda s: self._cut(s, len(experts)), state)
            saved = self.trajectories.read_state(experts, like)
            state = jax.tree.map(lambda x: jnp.asarray(_pad(x, self.width)), saved)
        for epoch in range(done, self.expert.num_epochs):
            state, loss = self.run_epoch(keys, jnp.int32(epoch), state, frozen, self.data)
            segment.snapshots[epoch + 1] = self._to_host(state.params, len(experts))
            segment.losses.append(np.asarray(loss)[: len(experts)])
            self._check(experts, epoch, segment.losses[-1])
            bar(len(experts), loss=float(segment.losses[-1].mean()))
            last = epoch + 1 == self.expert.num_epochs
            if last or segment.is_due() or self.stop.requested:
                cut = self._cut(state, len(experts))
                self.trajectories.append(writer, experts, segment.snapshots, cut, segment.losses)
                segment = _Segment(self.config.runtime)
            if self.stop.requested:
                writer.wait()
                self.stop.raise_if_requested()

    def _sources(self, experts):
        """Final representation snapshots, stacked, for classifier experts; {} otherwise."""
        if self.stage == "representation":
            return {}
        before = open_trajectories(self.config, self.problem, self.workspace, "representation")
        like = jax.eval_shape(self.problem.network.init, jax.random.key(0))
        found = [before.read(expert, -1, like) for expert in experts]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)

    def _check(self, experts, epoch, losses):
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise UserError(
                f"the loss of {self.stage} expert {experts[bad[0]]} is {losses[bad[0]]} after "
                f"epoch {epoch + 1}; lower --config.experts.{self.stage}.learning_rate (or rho)"
            )

    @staticmethod
    def _cut(tree, count):
        return jax.tree.map(lambda x: x[:count], tree)

    def _to_host(self, params, count):
        return jax.tree.map(np.asarray, self._cut(params, count))


class _Segment:
    """Epochs finished since the last save."""

    def __init__(self, runtime):
        self.snapshots = {}
        self.losses = []
        self._epochs = runtime.checkpoint_epochs
        self._deadline = time.monotonic() + 60 * (runtime.checkpoint_minutes or float("inf"))

    def is_due(self) -> bool:
        return len(self.losses) >= self._epochs or time.monotonic() > self._deadline


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
