"""Files that record a run: atomic text and JSON, and one metrics line per logged step."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Replaces a file in one step: readers find the old content or the new, never half of it."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(content)
    temporary.replace(path)


def write_text(path: epath.PathLike, text: str) -> None:
    """`write_bytes` of a text in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes JSON with sorted keys atomically; raises ValueError on NaN and infinity."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


@dataclasses.dataclass(frozen=True)
class MetricLog:
    """Appends to metrics.jsonl: {"stage": ..., "step": ..., name: value, ...} per line.

    To resume a stage at step n, call `truncate_after(stage, n)` first (-1 to start it over): the
    file then becomes the one of an uninterrupted run, as far as the metrics themselves repeat.

    Attributes:
      path: the file.
      enabled: False on all processes but the first; then nothing is written.
    """

    path: epath.PathLike
    enabled: bool = True

    def write(self, stage: str, step: int, metrics: Mapping[str, Any]) -> None:
        """Adds a line; it is on disk when the call returns.

        Args:
          stage: which loop counts the steps.
          step: its step.
          metrics: name -> number, text or array of size 1.

        Raises:
          ValueError: a metric is NaN or infinite.
        """
        line = {"stage": stage, "step": int(step)}
        for name, value in metrics.items():
            value = value.item() if hasattr(value, "item") else value
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value} at step {step} of {stage}")
            line[name] = value
        if self.enabled:
            path = epath.Path(self.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def truncate_after(self, stage: str, step: int) -> None:
        """Removes the lines of `stage` beyond `step`, and a line cut off when a run was killed."""
        path = epath.Path(self.path)
        if not self.enabled or not path.exists():
            return
        text = path.read_text()
        kept = ""
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            entry = json.loads(line)
            if entry["stage"] != stage or entry["step"] <= step:
                kept += line
        if kept != text:
            write_text(path, kept)
