"""The code blocks of README.md and docs/, and the directory that their examples expect."""

import contextlib
import dataclasses
import json
import pathlib
import re

import jax
import numpy as np

from ltdd_jax.data import long_tail, normalize, sources

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(
    r"(?:<!-- not executed here: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
      page: path within the repository.
      language: after the fence.
      text: what it holds.
      reason: why it cannot be run in a test; empty where it can.
    """

    page: str
    language: str
    text: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page}: {self.text.strip().splitlines()[0][:40]}"


def find_blocks(language: str = "", page: str = "") -> list[Block]:
    """All blocks, or those of one language or page, in order."""
    blocks = [
        Block(str(path.relative_to(ROOT)), m["language"], m["text"], m["reason"] or "")
        for path in PAGES
        for m in _FENCE.finditer(path.read_text(encoding="utf-8"))
    ]
    return [b for b in blocks if b.language == (language or b.language)
            and b.page == (page or b.page)]  # fmt: skip


def write_run(root: pathlib.Path) -> None:
    """The files of a run in runs/digits_lt below `root`, whose distilled images are real ones."""
    train = sources.load_source("digits", "train")
    train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, 20.0))
    pre = normalize.fit(train.images)
    rows = np.concatenate([np.flatnonzero(train.labels == k)[:2] for k in range(10)])
    run = root / "runs" / "digits_lt"
    (run / "synthetic").mkdir(parents=True)
    normalize.save(pre, run / "preprocessing.npz")
    np.savez(
        run / "synthetic" / "synthetic.npz",
        images=normalize.apply(pre, train.images[rows]),
        pixels=train.images[rows],
        labels=train.labels[rows],
        label_logits=10 * np.eye(10, dtype=np.float32)[train.labels[rows]],
        step_size=np.float32(0.03),
        class_names=np.asarray(train.class_names),
    )
    config = {"net": {"name": "convnet", "width": 16, "depth": 2}, "augment": {"strategy": ""}}
    (run / "set.json").write_text(json.dumps({"config": config}))


@contextlib.contextmanager
def as_for_a_user():
    """JAX's own settings in place of the strict ones of the suite."""
    wanted = {"jax_numpy_rank_promotion": "allow", "jax_numpy_dtype_promotion": "standard"}
    wanted["jax_debug_key_reuse"] = False
    before = {name: getattr(jax.config, name) for name in wanted}
    for name, value in wanted.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
