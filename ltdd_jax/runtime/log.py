"""The metrics of a run: one line of JSON per logged step."""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath

from ltdd_jax.runtime import files


@dataclasses.dataclass(frozen=True)
class MetricLog:
    """Lines of metrics.jsonl: {"stage": ..., "step": ..., name: value, ..., "checksum": ...}.

    To resume a stage at step n, call `truncate_after(stage, n)` first (-1 to start it over): the
    file then becomes the one of an uninterrupted run, as far as the metrics themselves repeat.

    Attributes:
      path: the file.
      enabled: False on all processes but the first; then nothing is written.
    """

    path: epath.PathLike
    enabled: bool = True

    def read(self, stage: str) -> list[dict[str, Any]]:
        """The lines of a stage, in order; damaged ones are left out, and the file as it is."""
        path = epath.Path(self.path)
        lines = path.read_bytes().splitlines() if path.exists() else []
        entries = [json.loads(line) for line in lines if _is_good(line)]
        return [entry for entry in entries if entry["stage"] == stage]

    def write(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds a line; it is handed to the system when the call returns.

        Args:
          stage: which loop counts the steps.
          step: its step.
          metrics: name -> number, text or array of size 1.

        Raises:
          ValueError: a metric is NaN or infinite.
          UserError: the file cannot be written.
        """
        line = _render(stage, step, metrics)
        if not self.enabled:
            return
        path = epath.Path(self.path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if files.is_local(path):
                with path.open("a") as file:
                    file.write(line)
            else:  # object stores cannot append
                path.write_text((path.read_text() if path.exists() else "") + line)
        except OSError as error:
            raise files.cannot_write(path, error) from error

    def replace(self, stage: str, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Makes (step, metrics) of `rows` the lines of `stage`, in place of those there are.

        New lines stand where the old ones stood, and at the end if there were none.
        """
        new = [_render(stage, step, metrics) for step, metrics in rows]
        if not self.enabled:
            return
        lines = _read_good_lines(self.path)
        places = [i for i, line in enumerate(lines) if json.loads(line)["stage"] == stage]
        if [lines[i] for i in places] == new:
            return
        place = places[0] if places else len(lines)
        kept = [line if i not in places else "" for i, line in enumerate(lines)]
        files.write_text(self.path, "".join([*kept[:place], *new, *kept[place:]]))

    def truncate_after(self, stage: str, step: int) -> None:
        """Removes the lines of `stage` beyond `step`, and a line cut off when a run was killed.

        Damaged lines are named in a warning; the file with them is kept beside the new one.
        """
        if not self.enabled:
            return
        lines = _read_good_lines(self.path)
        kept = [
            line
            for line in lines
            if (entry := json.loads(line))["stage"] != stage or entry["step"] <= step
        ]
        if kept != lines:
            files.write_text(self.path, "".join(kept))


def _render(stage, step, metrics):
    entry = {"stage": stage, "step": int(step)}
    for name, value in metrics.items():
        value = value.item() if hasattr(value, "item") else value
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value} at step {step} of {stage}")
        entry[name] = value
    return json.dumps(files.seal(entry)) + "\n"


def _read_good_lines(path: epath.PathLike) -> list[str]:
    """The lines that can be trusted; the file holds only these afterwards."""
    path = epath.Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    cut = bool(lines) and not lines[-1].endswith(b"\n")  # what a kill in the middle leaves
    whole = lines[:-1] if cut else lines
    bad = [number for number, line in enumerate(whole, 1) if not _is_good(line)]
    good = [line.decode() for number, line in enumerate(whole, 1) if number not in bad]
    if bad:
        aside = files.set_aside(path)
        print(
            f"warning: {path}: line {', '.join(map(str, bad))} was damaged and is left out; "
            f"the file as it was is {aside}",
            flush=True,
        )
    if bad or cut:
        files.write_text(path, "".join(good))
    return good


def _is_good(line):
    try:
        entry = files.unseal(json.loads(line))
        return isinstance(entry["step"], int) and isinstance(entry["stage"], str)
    except (ValueError, KeyError):
        return False
