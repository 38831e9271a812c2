"""Views of a set by loops over pixels in float64, from numbers drawn elsewhere."""

import numpy as np


def stretch(picture, top, left, height, width, mirrored):
    """The box of a picture [H, W, C] at the picture's size: bilinear between pixel centres.

    Points beyond the outermost pixel centres of the box take these pixels.
    """
    rows, cols, channels = picture.shape
    out = np.zeros((rows, cols, channels))
    for i in range(rows):
        for j in range(cols):
            y = _place(top, height, (i + 0.5) / rows, rows)
            x = _place(left, width, (j + 0.5) / cols, cols)
            r, c = int(y), int(x)
            below, right = min(r + 1, rows - 1), min(c + 1, cols - 1)
            v, u = y - r, x - c
            value = (1 - v) * ((1 - u) * picture[r, c] + u * picture[r, right])
            value += v * ((1 - u) * picture[below, c] + u * picture[below, right])
            out[i, cols - 1 - j if mirrored else j] = value
    return out


def _place(start, length, share, side):
    at = start + share * length - 0.5
    return min(max(at, start), start + max(length - 1, 0), side - 1)


def view(images, boxes, partners, patches):
    """All images of a view.

    Args:
      images: [S, H, W, C].
      boxes: (top, left, height, width, mirrored), [S] each.
      partners: [S].
      patches: (rows [S, 2], cols [S, 2]), or None without cutmix.
    """
    crops = [stretch(image, *box) for image, *box in zip(images, *boxes, strict=True)]
    found = [crop.copy() for crop in crops]
    if patches is not None:
        for s, ((r0, r1), (c0, c1)) in enumerate(zip(*patches, strict=True)):
            found[s][r0:r1, c0:c1] = crops[partners[s]][r0:r1, c0:c1]
    return np.stack(found)


def unpack(draws):
    """Drawn numbers as arrays of `view`."""
    boxes, patches = draws.boxes, draws.patches
    plain = [np.asarray(x, np.float64) for x in (boxes.top, boxes.left, boxes.height, boxes.width)]
    pairs = None if patches is None else (np.asarray(patches.rows), np.asarray(patches.cols))
    return (*plain, np.asarray(boxes.mirrored)), np.asarray(draws.partners), pairs
