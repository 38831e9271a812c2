"""The whitening as a few tensors, and the short function that applies them."""

from typing import Any

import numpy as np

from ltdd_jax.data.normalize import Preprocessing

# Pixels are flattened in (row, column, channel) order, in PyTorch as well.
_NUMPY = """\
def whiten(pixels):  # uint8 [N, H, W, C] -> float32 [N, H, W, C]
    w = np.load("whitening.npz")
    x = (pixels / np.float32(255) - w["mean"]) / w["std"]
{zca}    return x.reshape(pixels.shape)
"""
_TORCH = """\
def whiten(pixels):  # uint8 [N, C, H, W] -> float32 [N, C, H, W]
    w, (n, c, height, width) = found["whitening"], pixels.shape
    x = (pixels.permute(0, 2, 3, 1) / 255 - w["mean"]) / w["std"]
{zca}    return x.reshape(n, height, width, c).permute(0, 3, 1, 2)
"""
_MATRIX = """\
    x = (x.reshape(len(x), -1) - w["zca_mean"]) @ w["zca_transform"]
"""
_DIRECTIONS = """\
    x = x.reshape(len(x), -1) - w["zca_mean"]
    x = w["zca_outside"] * x + (x @ w["zca_basis"] * w["zca_gains"]) @ w["zca_basis"].T
"""


def to_arrays(pre: Preprocessing) -> dict[str, np.ndarray]:
    """What `whiten` of `explain` reads.

    Returns:
      `mean`, `std` float32 [C]; with whitening `zca_mean` [D], D = H·W·C, and either
      `zca_transform` [D, D], or, where it was fitted to few images, `zca_basis` [D, R] with
      `zca_gains` [R] and the scalar `zca_outside`, for which the transform is
      outside · I + basis · diag(gains) · basisᵀ.
    """
    arrays: dict[str, Any] = {"mean": pre.mean, "std": pre.std}
    if pre.zca_mean is not None:
        arrays["zca_mean"] = pre.zca_mean
    if pre.zca_transform is not None:
        arrays["zca_transform"] = pre.zca_transform
    if pre.zca_basis is not None and pre.zca_values is not None and pre.zca_eps is not None:
        outside = 1 / np.sqrt(pre.zca_eps)
        arrays["zca_basis"] = pre.zca_basis
        arrays["zca_gains"] = 1 / np.sqrt(pre.zca_values + pre.zca_eps) - outside
        arrays["zca_outside"] = outside
    return {name: np.asarray(array, np.float32) for name, array in arrays.items()}


def explain(pre: Preprocessing, library: str = "numpy") -> str:
    """Source of the function `whiten(pixels)` for the arrays of `to_arrays`.

    Args:
      pre: the fitted preprocessing.
      library: "numpy" reads whitening.npz in the current folder and takes [N, H, W, C]; "torch"
        reads the dict `found` of the .pt file and takes [N, C, H, W].
    """
    zca = ""
    if pre.whitens:
        zca = _MATRIX if pre.zca_basis is None else _DIRECTIONS
    return (_TORCH if library == "torch" else _NUMPY).format(zca=zca)
