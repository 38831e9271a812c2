"""Breaks when TensorBoard cannot read what is written, or shows a step of a resumed run twice."""

import errno
import io
import itertools
import os
import sys
import time

import numpy as np
import pytest
from PIL import Image

from ltdd_jax.runtime import events
from ltdd_jax.types import UserError

pytest.importorskip("tensorboardX", reason="the event files are written with tensorboardX")
accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="TensorBoard reads the events"
)


def read(directory):
    """What TensorBoard reads from the files of a stage."""
    found = accumulators.EventAccumulator(
        str(directory), {accumulators.IMAGES: 0, accumulators.HISTOGRAMS: 0}
    )
    return found.Reload()


def losses(directory):
    return [(event.step, event.value) for event in read(directory).Scalars("loss")]


def test_tensorboard_reads_scalars_images_and_histograms(tmp_path):
    log = events.EventLog(tmp_path / "new", True)
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    values = np.float32([[-1, 0, 0], [0, 2, 5]])
    with log.record("distill", 0):
        log.write(
            "distill", 3, scalars={"loss": 0.5}, images={"grid": pixels}, histograms={"x": values}
        )
        found = read(tmp_path / "new" / "distill")  # before it is closed: a run goes on
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(3, 0.5)]
    (image,) = found.Images("grid")
    assert (image.step, image.height, image.width) == (3, 4, 6)
    drawn = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    np.testing.assert_array_equal(drawn, pixels)
    (spread,) = found.Histograms("x")
    numbers = spread.histogram_value
    assert (spread.step, numbers.num, numbers.min, numbers.max, numbers.sum) == (3, 6, -1, 5, 6)


def test_a_resumed_stage_shows_every_step_once(tmp_path):
    """Killed after step 5, the checkpoint is that of step 3."""
    log = events.EventLog(tmp_path, True)
    with log.record("distill", 0):
        for step in range(6):
            log.write("distill", step, scalars={"loss": step})
    with log.record("distill", 3):
        for step in (4, 5, 6):
            log.write("distill", step, scalars={"loss": -step})
    expected = [(0, 0), (1, 1), (2, 2), (3, 3), (4, -4), (5, -5), (6, -6)]
    assert losses(tmp_path / "distill") == expected


def test_a_stage_that_starts_over_shows_nothing_of_before(tmp_path, monkeypatch):
    """Step 0 included; each sitting begins in another second, which names its file."""
    clock = itertools.count(1_800_000_000.0)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    log = events.EventLog(tmp_path, True)
    for value in (1, 2):
        with log.record("distill", 0):
            log.write("distill", 0, scalars={"loss": value})
        log.replace("experts", [(1, {"loss": 7.0}), (2, {"loss": 6.0})][: 3 - value])
    assert losses(tmp_path / "distill") == [(0, 2)]
    assert len(list((tmp_path / "distill").iterdir())) == 2
    assert losses(tmp_path / "experts") == [(1, 7)]
    assert len(list((tmp_path / "experts").iterdir())) == 1


def test_nothing_is_written_unless_wanted(tmp_path):
    log = events.EventLog(tmp_path, False)
    with log.record("distill", 0):
        log.write("distill", 1, scalars={"loss": 1})
    log.replace("experts", [(1, {"loss": 1})])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_in_a_sentence(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = events.EventLog(tmp_path, True)
    full = pytest.raises(UserError, match="free some disk space")
    with log.record("distill", 0), monkeypatch.context() as patch, full:
        patch.setattr("tensorboardX.record_writer.RecordWriter.flush", fail)
        log.write("distill", 1, scalars={"loss": 1})
    monkeypatch.setattr("tensorboardX.record_writer.open_file", fail)
    with pytest.raises(UserError, match="free some disk space"):
        log.replace("experts", [])


def test_what_is_missing_is_named_with_the_remedy(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"needs a --workdir on a file system, not gs://b"):
        events.EventLog("gs://b/run", True)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match=r"pip install 'ltdd_jax\[tensorboard\]'"):
        events.EventLog(tmp_path, True)
    events.EventLog(tmp_path, False)
