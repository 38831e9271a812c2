"""One record of a run: what its stages share."""

import dataclasses

from ml_collections import ConfigDict

from ltdd_jax.pipeline.problem import Problem
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.runtime.interrupt import StopRequest


@dataclasses.dataclass(frozen=True)
class Run:
    """What every stage is given.

    Attributes:
      config: validated.
      problem: data, preprocessing, network and augmentation.
      workspace: where files lie.
      stop: whether a signal has come.
    """

    config: ConfigDict
    problem: Problem
    workspace: Workspace
    stop: StopRequest
