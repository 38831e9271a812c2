"""What a run would cost and what of it is there already, without doing or writing anything."""

import contextlib
import dataclasses
import io
from collections.abc import Mapping

from ml_collections import ConfigDict

from ltdd_jax import backend
from ltdd_jax.data.sources import ImageSet
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.pipeline import claims, evaluate, experts, labels, plan, teachers, work
from ltdd_jax.pipeline.distill import make_method
from ltdd_jax.pipeline.problem import load_problem
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.settle import settle_config
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime.interrupt import StopRequest

BASELINES = "baselines/"  # begins what is shared of an evaluation, as it begins their files


@dataclasses.dataclass(frozen=True)
class Cost:
    """Multiplications and additions of a run, layers only.

    Attributes:
      own: of what no other set has a part in: distillation and its evaluation.
      shared: name -> of what sets of one directory have in common; equal names are the same thing.
      there: names of `shared` that are on disk; not of baselines at the rate of other ones, whose
        files are found once that rate is known.
      has_begun: whether something of the set itself is on disk.
    """

    own: float
    shared: Mapping[str, float] = dataclasses.field(default_factory=dict)
    there: frozenset[str] = frozenset()
    has_begun: bool = False


def estimate_cost(
    config: ConfigDict,
    sets: tuple[ImageSet, ImageSet],
    workdir: str,
    set_name: str,
    keep: frozenset[str] = frozenset(),
) -> Cost:
    """The cost of a whole run, compilation apart.

    Args:
      config: validated.
      sets: of `problem.load_sets`.
      workdir: of the run; what lies there is only looked at.
      set_name: of the run.
      keep: dotted fields that a budget leaves as they are.

    Raises:
      UserError: settings that do not fit the data.
    """
    run = _imagine(config, sets, workdir, set_name, keep)
    method = labels.add_needs(run, make_method(run))
    flops = work.count_flops(run, method)
    shared, there = {}, set()
    for kind in method.experts:
        name = experts.name_directory(run, kind)
        shared[name] = work.count_experts(run, kind)
        if _is_there(run, kind):
            there.add(name)
    for kind in teachers.needed_teachers(method):
        for member in teachers.list_members(run, kind):
            shared[member.directory.name] = teachers.count_member_flops(member)
            if teachers.is_there(member):
                there.add(member.directory.name)
    for row in work.list_baselines(run, method):
        name = f"{BASELINES}{evaluate.name_row(run, row, row.rate)}"
        shared[name] = work.count_row(run, row)
        # A row at the rate of another one lies under a name that this rate is part of.
        if not row.rate_of and (run.workspace.root / f"{name}.json").exists():
            there.add(name)
    return Cost(
        own=flops["distill"] + flops["evaluate"],
        shared=shared,
        there=frozenset(there),
        has_begun=run.workspace.set_record.exists(),
    )


def measure_speed(config: ConfigDict, sets: tuple[ImageSet, ImageSet]) -> float:
    """FLOP per second of this machine for the network and the images of a run, roughly."""
    run = _imagine(config, sets, "", "", frozenset())
    return plan.time_flops(run) * (1 if backend.is_cpu() else len(backend.devices()))


def _imagine(config, sets, workdir, set_name, keep) -> Run:
    """A run that is only thought about: whitening takes long and changes no cost."""
    machine = claims.read_machine(workdir) if config.budget and workdir else None
    with contextlib.redirect_stdout(io.StringIO()):  # the run itself will say it
        settled = settle_config(config, sets[0], keep, machine)
        plain = ConfigDict(settled.to_dict(), convert_dict=True)
        plain.data.whiten = "off"
        problem = load_problem(plain, *sets)
    return Run(settled, problem, Workspace(settled, workdir, set_name), StopRequest())


def _is_there(run: Run, kind: str) -> bool:
    try:
        found = experts.open_trajectories(run, kind).complete_experts()
    except DamagedSegmentError:
        return False
    return len(found) >= run.config.experts.num_experts
