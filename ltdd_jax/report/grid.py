"""A contact sheet of labelled images: one row per class."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MAX_SIDE = 4000  # pixels of the whole picture
_TARGET_CELL = 64  # pixels to which small images are enlarged
_GAP = 2
_MARGIN = 8
_FONT_SIZE = 14
_LABEL_WIDTH = 160  # at most; shorter names leave more room
_INK, _PAPER = (32, 32, 32), (255, 255, 255)


class _Layout(NamedTuple):
    scale: int  # side of a pixel
    num_panels: int  # blocks of classes side by side
    num_rows: int  # classes per panel
    num_columns: int  # images shown of each class
    label_width: int  # room for the names


def draw_grid(
    pixels: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    max_images_per_class: int = 20,
    max_side: int = MAX_SIDE,
) -> Image.Image:
    """Draws the images of every class in a row behind the name of the class.

    Args:
      pixels: uint8 [S, H, W, C], C = 1 (grey) or 3 (RGB); enlarged by nearest neighbour.
      labels: int [S] in [0, K).
      class_names: [K].
      max_images_per_class: images shown of each class, the first ones; a note says what is left
        out. Fewer are shown when the picture would become too large, and at last fewer classes.
      max_side: largest width and height in pixels.

    Raises:
      ValueError: wrong dtype or shape.
    """
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        raise ValueError(
            f"pixels must be uint8 [S, H, W, 1 or 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    height, width = pixels.shape[1:3]
    rows_of_class = [np.flatnonzero(labels == k) for k in range(len(class_names))]
    longest = max((len(rows) for rows in rows_of_class), default=0)
    font = ImageFont.load_default(size=_FONT_SIZE)
    names = [_fit(" ".join(str(name).split()), font, _LABEL_WIDTH) for name in class_names]
    label_width = math.ceil(max(map(font.getlength, names), default=0)) + _MARGIN
    layout = _choose_layout(
        (height, width), len(names), min(longest, max_images_per_class), label_width, max_side
    )

    shown = min(len(names), layout.num_panels * layout.num_rows)
    cell_height, cell_width, panel_width = _cell_size((height, width), layout)
    note = _note(shown, len(names), layout.num_columns, longest)
    canvas = Image.new("RGB", _picture_size((height, width), layout, bool(note)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for k in range(shown):
        panel, row = divmod(k, layout.num_rows)
        left, top = _MARGIN + panel * panel_width, _MARGIN + row * cell_height
        draw.text((left, top + (cell_height - _GAP) // 2), names[k], _INK, font, anchor="lm")
        for column, index in enumerate(rows_of_class[k][: layout.num_columns]):
            place = (left + label_width + column * cell_width, top)
            canvas.paste(_enlarge(pixels[index], layout.scale), place)
    if note:
        draw.text((_MARGIN, canvas.height - _MARGIN), note, _INK, font, anchor="lb")
    return canvas


def _choose_layout(
    size, num_classes: int, num_columns: int, label_width: int, max_side: int
) -> _Layout:
    """The largest images, then the fewest panels, that fit; else fewer images per class."""
    best_scale = max(1, _TARGET_CELL // max(size))
    for columns in range(max(num_columns, 1), 0, -1):
        for scale in range(best_scale, 0, -1):
            for panels in range(1, max(num_classes, 1) + 1):
                rows = math.ceil(num_classes / panels)
                layout = _Layout(scale, panels, rows, columns, label_width)
                picture = _picture_size(size, layout, has_note=True)
                if picture[0] > max_side:
                    break  # more panels are wider still
                if picture[1] <= max_side:
                    return layout
    # Not even one image of each class fits: as many classes as there is room for.
    single = _Layout(1, 1, 1, 1, label_width)
    cell_height, _, panel_width = _cell_size(size, single)
    room = max_side - 2 * _MARGIN
    rows = (room - 2 * _FONT_SIZE) // cell_height
    return single._replace(num_panels=max(room // panel_width, 1), num_rows=max(rows, 1))


def _cell_size(size, layout: _Layout) -> tuple[int, int, int]:
    """Height of a row, width of an image, width of a panel; gaps included."""
    height, width = (layout.scale * side + _GAP for side in size)
    panel_width = layout.label_width + layout.num_columns * width + _MARGIN
    return max(height, _FONT_SIZE + _GAP), width, panel_width


def _picture_size(size, layout: _Layout, has_note: bool) -> tuple[int, int]:
    """(width, height) of the whole picture."""
    cell_height, _, panel_width = _cell_size(size, layout)
    width = 2 * _MARGIN + layout.num_panels * panel_width
    height = 2 * _MARGIN + layout.num_rows * cell_height + has_note * 2 * _FONT_SIZE
    return width, height


def _note(shown: int, num_classes: int, columns: int, longest: int) -> str:
    notes = []
    if columns < longest:
        notes.append(f"first {columns} of {longest} images per class")
    if shown < num_classes:
        notes.append(f"first {shown} of {num_classes} classes")
    return ", ".join(notes)


def _fit(text: str, font, width: int) -> str:
    """Shortens `text` to `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _enlarge(image: np.ndarray, scale: int) -> Image.Image:
    return Image.fromarray(
        np.repeat(np.repeat(np.broadcast_to(image, (*image.shape[:2], 3)), scale, 0), scale, 1)
    )
