"""Draws digits_lt.png, the picture in the README, from a finished run of configs/digits_lt.py.

python docs/img/draw_digits.py runs/digits_lt docs/img/digits_lt.png
"""

import json
import pathlib
import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ltdd_jax.data import long_tail, sources

_SCALE, _GAP, _BLOCK_GAP = 7, 3, 16  # screen pixels per image pixel, between images, between blocks
_LEFT, _TOP, _FONT_SIZE = 130, 28, 14
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


def draw(workdir: pathlib.Path) -> Image.Image:
    """Columns are classes: training images, some of them, and the distilled images."""
    report = json.loads((workdir / "report.json").read_text())
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        distilled, labels = archive["pixels"], archive["labels"]
    train = sources.load_source("digits", "train")
    factor = report["config"]["data"]["imbalance_factor"]
    train = train.take(long_tail.select_long_tail(train.labels, train.num_classes, factor))
    ipc = len(labels) // train.num_classes
    blocks = {"real images": (train.images, train.labels), "distilled images": (distilled, labels)}

    cell = _SCALE * distilled.shape[1] + _GAP
    block_height = ipc * cell + _BLOCK_GAP
    size = (_LEFT + train.num_classes * cell, _TOP + len(blocks) * block_height)
    canvas = Image.new("RGB", size, _PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=_FONT_SIZE)
    pen.text((0, _TOP // 2), "training images", _INK, font, anchor="lm")
    for k, count in enumerate(report["train_counts"]):
        pen.text((_LEFT + k * cell + cell // 2, _TOP // 2), str(count), _INK, font, anchor="mm")
    for i, (name, (pixels, classes)) in enumerate(blocks.items()):
        top = _TOP + i * block_height
        pen.text((0, top + ipc * cell // 2), name, _INK, font, anchor="lm")
        for k in range(train.num_classes):
            for j, image in enumerate(pixels[classes == k][:ipc]):
                big = np.kron(image[..., 0], np.ones((_SCALE, _SCALE), np.uint8))
                canvas.paste(Image.fromarray(big), (_LEFT + k * cell, top + j * cell))
    return canvas.quantize(64)


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1])).save(sys.argv[2], optimize=True)
