"""Teachers and observers: networks trained once, kept, and asked by methods and for labels."""

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np
from etils import epath

from ltdd_jax import config as configs
from ltdd_jax import nets
from ltdd_jax.data import augment
from ltdd_jax.distill import Method
from ltdd_jax.distill.method import Teacher
from ltdd_jax.pipeline import experts, health, loop
from ltdd_jax.pipeline import problem as problem_of
from ltdd_jax.pipeline.run import Run
from ltdd_jax.runtime import checkpoint, files, mesh, prng, processes
from ltdd_jax.runtime.progress import progress
from ltdd_jax.teachers import train as teacher_training
from ltdd_jax.types import AugmentFn, Params, UserError

TEACHER = "teacher"  # the kind that labels
KINDS = (TEACHER, "observer")  # sections of the config
_HASH_DIGITS = 8
_RESNET32_WIDTH = 64
_CHECKPOINTS = 3  # states on disk at once: two kept, one being written


def needed_teachers(method: Method) -> tuple[str, ...]:
    """The kinds that a method asks, in the order in which they are trained."""
    return tuple(kind for kind in KINDS if kind in method.teachers)


@dataclasses.dataclass(frozen=True)
class Member:
    """One network of a kind.

    Attributes:
      run: whose settings make it.
      kind: of `KINDS`.
      place: among the section's `nets`, from 0.
    """

    run: Run
    kind: str
    place: int

    @property
    def section(self):
        """Settings of the kind."""
        return self.run.config[self.kind]

    @property
    def net(self) -> str:
        """Name of the network."""
        return self.section.nets[self.place]

    @property
    def title(self) -> str:
        """'teacher', or 'teacher 2' where there are several."""
        return self.kind if len(self.section.nets) == 1 else f"{self.kind} {self.place + 1}"

    @property
    def directory(self) -> epath.Path:
        """Where it lies, with its checkpoints while it is trained."""
        name = configs.identity_hash(self.identify())[:_HASH_DIGITS]
        return self.run.workspace.teachers / f"{self.kind}-{name}"

    def options(self) -> dict[str, Any]:
        """Settings that the network takes beside the shapes of the data."""
        net, width = self.run.config.net, self.section.width
        first = self.section.resnet_width or width or _RESNET32_WIDTH
        known = {
            "width": width or net.width,
            "widths": (first, 2 * first, 4 * first),
            "depth": self.section.depth or net.depth,
        }
        return {k: v for k, v in known.items() if k in nets.list_options(self.net)}

    def identify(self) -> dict[str, Any]:
        """What makes it what it is; other networks of the section have no part in it."""
        made_by = ["seed", "data", "augment", "runtime.precision", self.kind]
        found = configs.identity(self.run.config, made_by)
        for name in ("nets", "width", "resnet_width", "depth"):
            found[self.kind].pop(name)
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options().items()}
        return found | {
            "net": {"name": self.net, "place": self.place, **options},
            "data_fingerprint": self.run.problem.fingerprint,
        }

    def network(self) -> nets.Network:
        """The network, built once for a process.

        Raises:
          UserError: it does not fit the images.
        """
        problem, form = self.run.problem, {"form": self.run.config.runtime.convolution}
        form = form if "form" in nets.list_options(self.net) else {}
        try:
            return problem_of.build_network(
                self.run.config,
                self.net,
                problem.image_shape,
                problem.num_classes,
                form | self.options(),
            )
        except (ValueError, ZeroDivisionError, TypeError) as error:  # of Flax and XLA
            height, width, _ = problem.image_shape
            raise UserError(
                f"--config.{self.kind}.nets names {self.net}, which does not fit images of "
                f"{height} x {width} pixels ({str(error).strip().splitlines()[0]}); use another "
                f"network, a smaller --config.{self.kind}.depth or larger images"
            ) from error


def list_members(run: Run, kind: str) -> tuple[Member, ...]:
    """All networks of a kind."""
    return tuple(Member(run, kind, place) for place in range(len(run.config[kind].nets)))


def list_networks(run: Run, kind: str) -> tuple[nets.Network, ...]:
    """The networks of a kind, trained or not; raises as `Member.network`."""
    return tuple(member.network() for member in list_members(run, kind))


def identify(run: Run, kind: str) -> dict[str, Any]:
    """What makes the networks of `kind` what they are."""
    return {"members": [member.identify() for member in list_members(run, kind)]}


def run_teachers(run: Run, kinds: tuple[str, ...]) -> None:
    """Trains all networks of `kinds` that are not on disk yet, and logs their losses.

    A damaged network is moved aside and trained again.

    Raises:
      UserError: another process writes them, a network that does not fit the images, a full disk,
        or numbers that went wrong.
      Interrupted: stopped by a signal, with everything saved.
    """
    for kind in kinds:
        for member in list_members(run, kind):
            found = _find(member)
            processes.say(f"{member.title}: {member.net} {'is there' if found else 'is missing'}")
            if found is None:
                with _sole_writer(run.workspace):
                    _train(member)
                found = _find(member)
            _delete_states(member)
            rows = [(epoch, {"loss": loss}) for epoch, loss in enumerate(found[1]["losses"], 1)]
            run.workspace.expert_metrics.replace(member.title.replace(" ", "_"), rows)


def read_teachers(run: Run, kind: str) -> tuple[Teacher, ...]:
    """The trained networks of a kind, parameters on the host.

    Raises:
      UserError: one is missing, or was damaged and is moved aside.
    """
    return tuple(Teacher(m.network(), read_params(m)) for m in list_members(run, kind))


def read_params(member: Member) -> Params:
    """The parameters of one network, NumPy arrays; raises as `read_teachers`."""
    found = _find(member)
    if found is None:
        raise UserError(
            f"the {member.title} ({member.net}) has not been trained; run --stage=experts with "
            "the same --workdir and settings"
        )
    return found[0]


def is_there(member: Member) -> bool:
    """Whether the network seems to be on disk; its content is not looked at."""
    return checkpoint.is_complete(_final_path(member))


def _final_path(member):
    return member.directory / "final"


def _states_path(member):
    return member.directory / "training"


def _sole_writer(workspace):
    """Holds the teachers against other runs; the lock of this run holds those at its root."""
    at_root = workspace.teachers.parent == workspace.root
    return contextlib.nullcontext() if at_root else experts.sole_writer(workspace)


def _find(member):
    """(parameters, record) of a network on disk, None without one; a damaged one is moved away."""
    return processes.first_then_rest(lambda: _read(member))


def _read(member):
    path = _final_path(member)
    if not files.exists(path):
        return None
    try:
        if not checkpoint.is_complete(path):
            raise checkpoint.CorruptCheckpointError(f"checkpoint {path} is incomplete")
        record = checkpoint.read_record(path)
        like = jax.eval_shape(member.network().init, jax.random.key(0))
        return checkpoint.read_tree(path, like, record), record
    except checkpoint.CorruptCheckpointError as error:
        moved = files.set_aside(path).name
        member.run.workspace.warn(f"{error}; moved to {moved}, to be trained again")
        return None


def make_augment(member: Member) -> AugmentFn:
    """The augmentation that the section asks for."""
    kind, strategy = member.section.augment, member.run.config.augment.strategy
    if kind == "crop_flip":
        return augment.make_crop_flip(mirror="flip" in augment.parse_strategy(strategy))
    return member.run.problem.augment if kind == "dsa" else lambda key, images: images


def make_training(member: Member) -> teacher_training.Training:
    """The pure functions that train one network."""
    settings = {**member.section.to_dict(), **member.section.glmc.to_dict()}
    names = [field.name for field in dataclasses.fields(teacher_training.Recipe)]
    recipe = teacher_training.Recipe(**{name: settings[name] for name in names})
    counts = member.run.problem.class_counts
    return teacher_training.make_training(member.network(), recipe, make_augment(member), counts)


def _train(member):
    """Trains from the last checkpoint to the last epoch and writes the network."""
    run, training = member.run, make_training(member)
    devices = mesh.make_mesh(1)
    data = experts.training_images(run.config, run.problem), run.problem.train.labels
    data = mesh.place(data, devices, split=False)
    key = jax.random.fold_in(prng.stream_key(run.config.seed, member.kind), member.place)
    state = jax.jit(training.init)(key)
    checkpoints = loop.Checkpoints(_states_path(member), run.workspace.warn, member.identify())
    found = checkpoints.restore(jax.eval_shape(lambda: state))
    state, record, done = found or (state, {"losses": []}, 0)
    losses = list(record["losses"])
    key, state = mesh.place((key, state), devices, split=False)
    run_epoch = jax.jit(training.run_epoch)
    with (
        checkpoint.Writer() as writer,
        progress(
            training.num_epochs, initial=done, desc=f"{member.title} {member.net}", unit="epoch"
        ) as bar,
    ):

        def advance(done):
            nonlocal state
            state, loss = run_epoch(key, np.int32(done), state, data)
            losses.append(float(mesh.fetch(loss)))
            _check(member, losses, state)
            bar(1, loss=losses[-1])
            return 1

        def save(done):
            checkpoints.save(writer, mesh.fetch(state), done, {"losses": losses})

        runtime = run.config.runtime
        loop.run_loop(
            run.stop, writer, loop.Cadence(runtime, runtime.checkpoint_epochs, done), done=done,
            total=training.num_epochs, advance=advance, save=save, save_last=False,
        )  # fmt: skip
        params = mesh.fetch(training.finish(state))
        writer.save(_final_path(member), params, {"identity": member.identify(), "losses": losses})


def _delete_states(member):
    """Keeps only the network of what a training has left, also one that was killed at its end."""
    path, workspace = _states_path(member), member.run.workspace
    if path.exists():
        # Others may write a shared directory, or we may not: that is no reason to stop here.
        with contextlib.suppress(UserError, OSError), _sole_writer(workspace):
            loop.Checkpoints(path, workspace.warn).delete()


def _check(member, losses, state):
    if not (np.isfinite(losses[-1]) and health.is_finite(state)):
        raise UserError(
            f"training of the {member.title} ({member.net}) went wrong: its loss is "
            f"{losses[-1]:g} after epoch {len(losses)}; lower "
            f"--config.{member.kind}.learning_rate"
        )


def count_flops(run: Run, kinds: tuple[str, ...]) -> float:
    """Multiplications and additions of the training of `kinds`; layers only."""
    return sum(count_member_flops(m) for kind in kinds for m in list_members(run, kind))


def count_member_flops(member: Member) -> float:
    """Multiplications and additions of the training of one network; layers only."""
    views = 2 if member.section.recipe == "glmc" else 1
    passes = 3 * views * member.section.num_epochs * len(member.run.problem.train.labels)
    return float(passes * member.network().sizes.flops)


def disk_bytes(run: Run, kinds: tuple[str, ...]) -> int:
    """Disk space of those that are not there yet, with the checkpoints of one in training."""
    sizes = [
        4 * member.network().sizes.num_parameters
        for kind in kinds
        for member in list_members(run, kind)
        if not is_there(member)
    ]
    return sum(sizes) + 2 * _CHECKPOINTS * max(sizes, default=0)  # parameters and momentum


def peak_bytes(run: Run, kinds: tuple[str, ...]) -> int:
    """Memory of the hungriest training, beyond the real data."""
    members = [member for kind in kinds for member in list_members(run, kind)]
    return max((_training_bytes(member) for member in members), default=0)


def _training_bytes(member):
    rows = min(member.section.batch_size, len(member.run.problem.train.labels))
    views = 2 if member.section.recipe == "glmc" else 1
    return member.network().sizes.training_bytes(views * rows)
