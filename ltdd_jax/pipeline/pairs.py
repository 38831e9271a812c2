"""What distillation reads of the experts: single snapshots, and pairs of them read ahead."""

import concurrent.futures

import jax
import numpy as np
from ml_collections import ConfigDict

from ltdd_jax.distill import matching, sampling
from ltdd_jax.distill import step as steps
from ltdd_jax.pipeline import experts as expert_stage
from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime import prng


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


class PairReader:
    """Reads the expert pairs of coming iterations in the background."""

    def __init__(self, config: ConfigDict, phases: list[steps.Phase], experts: Experts):
        self._experts = experts
        self._phases = phases
        self._ahead = config.distill.expert_epochs
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "snapshots")
        self._waiting: dict[tuple[int, int], concurrent.futures.Future] = {}
        self._per_iteration = config.distill.pairs_per_iteration
        self._count = config.distill.num_iterations
        count = self._count * self._per_iteration
        root = prng.stream_key(config.seed, "schedule")
        self._schedule = {}
        for index, phase in enumerate(phases):
            section = config.distill[phase.name]
            expert_key, start_key = jax.random.split(jax.random.fold_in(root, index))
            upper = sampling.upper_start_epochs(
                self._count,
                min_epoch=section.min_start_epoch,
                current_epoch=section.current_start_epoch,
                max_epoch=section.max_start_epoch,
                sequential=section.sequential,
                expansion_end=section.expansion_end,
            )
            upper = np.repeat(upper, self._per_iteration)
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
            pairs = [self._read_pairs(phase, iteration) for iteration in range(begin, end)]
            blocks.append(jax.tree.map(lambda *leaves: np.stack(leaves), *pairs))
        return tuple(blocks)

    def _read_pairs(self, phase, iteration):
        """The pair of one iteration, or several stacked; beyond the last: padding of a block."""
        first = min(iteration, self._count - 1) * self._per_iteration
        pairs = [self._read_pair(phase, first + i) for i in range(self._per_iteration)]
        return jax.tree.map(lambda *x: np.stack(x), *pairs) if len(pairs) > 1 else pairs[0]

    def _read_pair(self, phase, index):
        experts, starts = self._schedule[phase.name]
        expert, start = int(experts[index]), int(starts[index])
        target = self._experts.snapshot(phase.name, expert, start + self._ahead)
        return steps.ExpertPair(
            start=self._experts.snapshot(phase.name, expert, start),
            target=matching.select_part(target, phase.matched),
        )
