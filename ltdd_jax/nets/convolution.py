"""Two-dimensional convolution in several equal forms.

The networks call `conv2d` and do not know how it is computed. The form matters because the
distillation differentiates twice: XLA's own convolution has slow paths for the second-order
terms and for `vmap` over weights, matrix products do not.
"""

import jax
import jax.numpy as jnp

FORMS = ("lax", "patches", "shifts")


def default_form() -> str:
    """The form for the backend in use."""
    return "patches"


def conv2d(images, kernel, *, stride: int = 1, padding: int = 0, form: str = "auto"):
    """Cross-correlates `images` with `kernel`, zero padding, as deep-learning libraries do.

    Args:
      images: [B, H, W, C_in].
      kernel: [kh, kw, C_in, C_out], same dtype.
      stride: step in pixels, both axes.
      padding: zero rows and columns added on each side.
      form: "auto" or one of `FORMS`.

    Returns:
      [B, H', W', C_out] with H' = (H + 2·padding - kh) // stride + 1.

    Raises:
      ValueError: unknown form.
    """
    form = default_form() if form == "auto" else form
    if form == "lax":
        return _lax_form(images, kernel, stride, padding)
    if form == "patches":
        return _patches_form(images, kernel, stride, padding)
    if form == "shifts":
        return _shifts_form(images, kernel, stride, padding)
    raise ValueError(f"form must be 'auto' or one of {FORMS}, not {form!r}")


def _lax_form(images, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(images, kernel_shape, stride, padding):
    """The kh·kw shifted views of the padded images, each [B, H', W', C_in]."""
    _, height, width, _ = images.shape
    kh, kw = kernel_shape[:2]
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = (height + 2 * padding - kh) // stride + 1
    cols = (width + 2 * padding - kw) // stride + 1
    return [
        padded[
            :, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (cols - 1) + 1 : stride
        ]
        for i in range(kh)
        for j in range(kw)
    ]


def _patches_form(images, kernel, stride, padding):
    windows = _windows(images, kernel.shape, stride, padding)
    patches = jnp.concatenate(windows, axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _shifts_form(images, kernel, stride, padding):
    windows = _windows(images, kernel.shape, stride, padding)
    slices = kernel.reshape(-1, *kernel.shape[2:])
    return sum(window @ slices[i] for i, window in enumerate(windows))
