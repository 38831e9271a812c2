"""Distilled images class by class, each beside the real one it started from, with its label."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ltdd_jax.report import markup

BUDGET = 2_200_000  # bytes of all pictures of a page, as they stand in it
_EXACT_BELOW = 300_000  # up to so many bytes of pixels, pictures are stored without loss
_MAX_SIDE = 96  # of a picture in the page; larger ones are made smaller
_QUALITY = 85  # of JPEG
_SHOWN_LABELS = 3
_LEAST_PERCENT = 0.5  # smaller shares would be shown as 0
_SHOWN_PER_CLASS = 10
_BASE64 = 4 / 3


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The distilled set as it is looked at.

    Attributes:
      pixels: uint8 [S, H, W, C], C = 1 (grey) or 3 (RGB).
      labels: int [S] in [0, K), the class that each image stands for.
      probabilities: float [S, K], soft labels; rows sum to 1. For an image of several pictures,
        the mean of theirs.
      initial: uint8 [S, H, W, C], the real images they started from; None where there are none,
        as for a selection of real images.
      partition: f, where each image holds f x f pictures.
    """

    pixels: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    initial: np.ndarray | None = None
    partition: int = 1


def draw_cards(
    pictures: Pictures, class_names: Sequence[str], counts: Sequence[int], order: Sequence[int]
) -> tuple[str, str]:
    """A card for each class.

    Args:
      pictures: of all classes.
      class_names: [K].
      counts: [K], training images.
      order: classes, as they shall follow each other.

    Returns:
      HTML, and a sentence on what was left out ("" if nothing was).
    """
    per_class = np.bincount(pictures.labels, minlength=len(class_names))
    encode = _Encoder(pictures)
    shown = min(int(per_class.max(initial=1)), _SHOWN_PER_CLASS)
    room = BUDGET / encode.bytes_per_row
    shown = int(np.clip(room // len(order), 1, shown))
    classes = list(order)
    if len(order) > room:  # not even one image of each: some, from the first to the last
        places = np.linspace(0, len(order) - 1, max(int(room), 1))
        classes = [order[int(place)] for place in np.unique(places.round())]
    cards = []
    for k in classes:
        rows = np.flatnonzero(pictures.labels == k)[:shown]
        items = "".join(
            _draw_pair(pictures, encode, class_names, int(row), number)
            for number, row in enumerate(rows, 1)
        )
        title = f"{markup.escape(class_names[k])} <span class=soft>· {counts[k]} real</span>"
        cards.append(f'<article class="class"><h3>{title}</h3><ul class="pairs">{items}</ul>')
    note = _note(shown, int(per_class.max(initial=0)), len(classes), len(order), encode)
    if pictures.partition > 1:
        f = pictures.partition
        note += (
            f" Each image holds {f} x {f} pictures; networks see them one by one, enlarged. The "
            "label shown is the mean of theirs."
        )
    return '<div class="classes">\n' + "</article>\n".join(
        cards
    ) + "</article>\n</div>", note.strip()


def _draw_pair(pictures, encode, names, row, number):
    """One distilled image, the real one before it, and the largest shares of its label."""
    own = int(pictures.labels[row])
    name = markup.clean(names[own])
    images = ""
    if pictures.initial is not None:
        alt = f"{name}, image {number}: the real image it started from"
        images += encode.image(pictures.initial[row], alt)
    kind = "selected real image" if pictures.initial is None else "distilled image"
    images += encode.image(pictures.pixels[row], f"{name}, image {number}: {kind}")
    shares = pictures.probabilities[row]
    bars = ""
    for k in np.argsort(-shares, kind="stable")[:_SHOWN_LABELS]:
        percent = 100 * float(shares[k])
        if bars and percent < _LEAST_PERCENT:
            break
        other = markup.escape(names[k])
        css = ' class="own"' if k == own else ""
        bars += (
            f'<li{css}><span class="name" title="{other}">{other}</span>'
            f'<span class="bar"><i style="width:{percent:.0f}%"></i></span>'
            f'<span class="share">{percent:.0f}</span></li>'
        )
    return f'<li><div class="pair">{images}<ol>{bars}</ol></div></li>\n'


class _Encoder:
    """Pictures as files: exact if all of them are small together, else compressed."""

    def __init__(self, pictures: Pictures):
        sides = pictures.pixels.shape[1:3]
        self.factor = max(1, -(-max(sides) // _MAX_SIDE))
        kinds = 1 if pictures.initial is None else 2
        self.is_exact = self.factor == 1 and kinds * pictures.pixels.nbytes <= _EXACT_BELOW
        sample = pictures.pixels[:: max(1, len(pictures.pixels) // 8)][:8]
        size = max((len(self.encode(pixels)) for pixels in sample), default=1)
        text = 160 + 140 * _SHOWN_LABELS
        self.bytes_per_row = kinds * size * _BASE64 + text

    def encode(self, pixels: np.ndarray) -> bytes:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        image = image.reduce(self.factor) if self.factor > 1 else image
        buffer = io.BytesIO()
        if self.is_exact:
            image.save(buffer, format="PNG", optimize=True)
        else:
            image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
        return buffer.getvalue()

    def image(self, pixels: np.ndarray, alt: str) -> str:
        return markup.image(self.encode(pixels), "png" if self.is_exact else "jpeg", alt)


def _note(shown, per_class, num_shown, num_classes, encode):
    parts = []
    if shown < per_class:
        parts.append(f"the first {shown} of {per_class} images per class")
    if num_shown < num_classes:
        parts.append(f"{num_shown} of {num_classes} classes")
    text = f"Shown: {', '.join(parts)}. " if parts else ""
    if not encode.is_exact:
        text += "Pictures are compressed in this page; synthetic/synthetic.npz has the exact ones."
    return text.strip()
