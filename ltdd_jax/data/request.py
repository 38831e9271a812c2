"""What a reader of a data source is asked for, and whom it tells."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence

import psutil
from absl import logging
from etils import epath

from ltdd_jax.errors import UserError

SPLITS = ("train", "test")
_SHOWN = 10  # names in a message


def _ignore(*_: object) -> None:
    """The default of the callbacks that nobody needs."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Where a source lies and how to read it; every reader looks only at what concerns it.

    Attributes:
      data_dir: where TFDS keeps its sets; "" is TFDS's default.
      path: directory, tar, zip or npz file of the user.
      image_size: side in pixels to resize pictures to; 0 keeps their size.
      train_list: file with the names of the training pictures that count; "" for all.
      follow_links: whether links to folders are followed inside `path`.
      max_file_mb: largest picture file, and largest member of a compressed archive.
      max_total_gb: largest sum of the picture files, or of all members of a compressed archive.
      memory: "load" keeps the pixels in memory, "stream" on disk, "auto" decides by their number.
      cache: directory of decoded pictures on disk; "" is one in the user's cache.
      say: called now and then with a sentence about the progress.
      warn: called with a sentence about something that the user should know.
      check: called often; may raise to stop the reading.
    """

    data_dir: str = ""
    path: str = ""
    image_size: int = 0
    train_list: str = ""
    follow_links: bool = False
    max_file_mb: int = 100
    max_total_gb: int = 64
    memory: str = "auto"
    cache: str = ""
    say: Callable[[str], None] = _ignore
    warn: Callable[[str], None] = logging.warning
    check: Callable[[], None] = _ignore


def throttle(say: Callable[[str], None], seconds: float = 5.0) -> Callable[[str], None]:
    """`say`, but for the first time after `seconds` and then at most once in as many."""
    last = time.monotonic()

    def say_sometimes(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            say(text)

    return say_sometimes


def show_name(name: str) -> str:
    """The name as it is, or quoted with escapes where it would not print on one line."""
    return name if name.isprintable() else ascii(name)


def describe_error(error: Exception) -> str:
    """The first line of its message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return show_name(lines[0]) if lines else type(error).__name__


def list_names(names: Sequence[str]) -> str:
    """The first ten names, then how many more there are."""
    shown = ", ".join(show_name(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def is_remote(location: epath.Path) -> bool:
    """Whether it lies in an object store."""
    return "://" in os.fspath(location)


def is_regular_file(location: epath.Path) -> bool:
    """Whether it can be opened without waiting: epath counts pipes as files."""
    return location.is_file() if is_remote(location) else os.path.isfile(location)


def check_channels(source: str, channels: int) -> None:
    """Raises UserError unless images are grey or coloured: no others can be drawn or exported."""
    if channels not in (1, 3):
        raise UserError(
            f"the images of {source!r} have {channels} channels, but grey ones (1) or coloured "
            "ones (3) are needed; leave out the others, such as transparency."
        )


def check_memory(needed: float, what: str, remedy: str) -> None:
    """Raises UserError if `needed` bytes are not free in this machine's memory.

    Args:
      needed: bytes that are about to be allocated.
      what: start of the sentence, such as "ZCA for images of 1024 x 1024 pixels".
      remedy: end of the sentence, such as "lower --config.data.image_size".
    """
    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(
            f"{what} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; "
            f"{remedy}"
        )
