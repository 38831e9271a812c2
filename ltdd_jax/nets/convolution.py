"""Two-dimensional convolution in several equal forms, fast under every order of derivative.

A convolution is bilinear in image and kernel. It, its input gradient and its kernel gradient are
closed under differentiation: the derivatives of each are made of the other two. They are three
primitives here, each with its own fast program, so the second derivatives which distillation
needs never meet the slow paths of a compiler (docs/performance.md has the measurements).

The networks call `conv2d` and do not know which form computes it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ltdd_jax import backend

FORMS = ("lax", "patches", "shifts")
_UNROLLED = 16  # kernels of a batch that are applied one after the other in straight-line code


def default_form() -> str:
    """The form for the backend in use; the measurements are in docs/performance.md."""
    return "lax"


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
    if form not in FORMS:
        raise ValueError(f"form must be 'auto' or one of {FORMS}, not {form!r}")
    return _forward_p.bind(
        images,
        kernel,
        stride=stride,
        padding=padding,
        form=form,
        image_shape=images.shape[1:3],
        kernel_shape=kernel.shape[:2],
    )


# --- The three maps in each form; `shape` holds stride, padding, image_shape, kernel_shape. ---


def _lax_forward(images, kernel, *, stride, padding, **_):
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _windows(images, *, stride, padding, kernel_shape, **_):
    """The kh·kw shifted views of the padded images, each [B, H', W', C_in]."""
    _, height, width, _ = images.shape
    kh, kw = kernel_shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    down = stride * ((height + 2 * padding - kh) // stride) + 1
    across = stride * ((width + 2 * padding - kw) // stride) + 1
    return [
        padded[:, i : i + down : stride, j : j + across : stride]
        for i in range(kh)
        for j in range(kw)
    ]


def _patches_forward(images, kernel, **shape):
    patches = jnp.concatenate(_windows(images, **shape), axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _shifts_forward(images, kernel, **shape):
    slices = kernel.reshape(-1, *kernel.shape[2:])
    return sum(window @ slices[i] for i, window in enumerate(_windows(images, **shape)))


def _shifts_kernel_gradient(images, cotangent, *, kernel_shape, **shape):
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    windows = _windows(images, kernel_shape=kernel_shape, **shape)
    slices = [window.reshape(-1, window.shape[-1]).T @ flat for window in windows]
    return jnp.stack(slices).reshape(*kernel_shape, images.shape[-1], cotangent.shape[-1])


def _patches_kernel_gradient(images, cotangent, *, kernel_shape, **shape):
    patches = jnp.concatenate(_windows(images, kernel_shape=kernel_shape, **shape), axis=-1)
    flat = patches.reshape(-1, patches.shape[-1]).T @ cotangent.reshape(-1, cotangent.shape[-1])
    return flat.reshape(*kernel_shape, images.shape[-1], cotangent.shape[-1])


def _patches_input_gradient(cotangent, kernel, *, image_shape, padding, **_):
    """One product gives the patches' gradients, which add up where patches overlap; stride 1."""
    kh, kw, channels, _ = kernel.shape
    patches = cotangent @ kernel.reshape(kh * kw * channels, -1).T
    slack = [(i, size - 1 - i) for size in (kh, kw) for i in range(size)]
    down, across = slack[:kh], slack[kh:]
    shifted = [
        jnp.pad(part, ((0, 0), down[n // kw], across[n % kw], (0, 0)))
        for n, part in enumerate(jnp.split(patches, kh * kw, axis=-1))
    ]
    height, width = image_shape
    return sum(shifted)[:, padding : padding + height, padding : padding + width]


def _uses_patches(form):
    """Whether few input channels are computed with patches in this form."""
    return form == "patches" or (form == "lax" and backend.is_cpu())


def _library_forward(images, kernel, **shape):
    """XLA's convolution; on a CPU one product where the patches are narrow enough."""
    if images.shape[-1] <= _THIN and _uses_patches("lax"):
        return _patches_forward(images, kernel, **shape)
    return _lax_forward(images, kernel, **shape)


_FORWARD = {"lax": _library_forward, "patches": _patches_forward, "shifts": _shifts_forward}
_IMAGES, _PIECES = 32, 8  # of one kernel gradient on a CPU: images at a time, sums at most
_THIN = 8  # input channels up to which all patches together are narrower than one product is wide


def _forward(images, kernel, *, form, **shape):
    return _FORWARD[form](images, kernel, **shape)


def _input_gradient(cotangent, kernel, *, form, image_shape, **shape):
    """Transpose of the forward map in the images: a convolution with the turned kernel."""
    kh, kw = shape["kernel_shape"]
    if kernel.shape[2] <= _THIN and shape["stride"] == 1 and _uses_patches(form):
        return _patches_input_gradient(cotangent, kernel, image_shape=image_shape, **shape)
    if shape["stride"] == 1 and kh == kw and kh > shape["padding"]:
        turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
        shape |= {"padding": kh - 1 - shape["padding"]}
        return _FORWARD[form](cotangent, turned, image_shape=cotangent.shape[1:3], **shape)
    images = jax.ShapeDtypeStruct(
        (cotangent.shape[0], *image_shape, kernel.shape[2]), cotangent.dtype
    )
    forward = functools.partial(_FORWARD[form], image_shape=image_shape, **shape)
    return jax.linear_transpose(lambda x: forward(x, kernel), images)(cotangent)[0]


def _kernel_gradient(images, cotangent, *, form, **shape):
    """Transpose of the forward map in the kernel."""
    if images.shape[-1] <= _THIN or form == "patches":
        return _patches_kernel_gradient(images, cotangent, **shape)
    if form == "shifts" or shape["stride"] > 1:
        return _shifts_kernel_gradient(images, cotangent, **shape)
    return _lax_kernel_gradient(images, cotangent, **shape)


def _lax_kernel_gradient(images, cotangent, **shape):
    """A convolution with channels and batch exchanged, the cotangent as its kernel.

    XLA:CPU packs that kernel anew for every call and falls out of the cache with many images:
    sums over some images at a time are up to 2.3 times as fast (docs/performance.md).
    """
    batch = images.shape[0]
    pieces = min(_PIECES, -(-batch // _IMAGES)) if backend.is_cpu() else 1
    rows = -(-batch // pieces)
    return sum(
        _correlate(images[i : i + rows], cotangent[i : i + rows], **shape)
        for i in range(0, batch, rows)
    )


def _correlate(images, cotangent, *, padding, **_):
    """[kh, kw, C_in, C_out] of [B, H, W, C_in] and [B, H', W', C_out], in one convolution.

    The transpositions are written out: XLA:CPU has a fast program for the usual layout only.
    """
    out = _lax_forward(
        images.transpose(3, 1, 2, 0), cotangent.transpose(1, 2, 0, 3), stride=1, padding=padding
    )
    return out.transpose(1, 2, 0, 3)


# --- The primitives: derivatives by bilinearity, batching, compilation. ---


def _in_turn(primitive, first, second, params):
    """One kernel after the other: what a CPU does best, its cores are busy with one anyway."""
    if len(first) <= _UNROLLED:
        return jnp.stack(
            [primitive.bind(a, b, **params) for a, b in zip(first, second, strict=True)]
        )
    return jax.lax.map(lambda pair: primitive.bind(*pair, **params), (first, second))


def _make_primitive(name: str, implementation: Callable, *, folds: bool) -> Primitive:
    """A primitive computed by `implementation`; `folds`: a batch of only the first operand can
    be folded into its leading axis."""
    primitive = Primitive(f"ltdd_{name}")
    primitive.def_impl(jax.jit(implementation, static_argnames=_STATIC))
    primitive.def_abstract_eval(
        lambda *avals, **params: _abstract(functools.partial(implementation, **params), avals)
    )
    lowering = mlir.lower_fun(implementation, multiple_results=False)
    mlir.register_lowering(primitive, lowering)

    def batch(operands, axes, **params):
        first, second = operands
        if folds and axes[1] is None:
            first = jnp.moveaxis(first, axes[0], 0)
            out = primitive.bind(first.reshape(-1, *first.shape[2:]), second, **params)
            return out.reshape(*first.shape[:2], *out.shape[1:]), 0
        size = next(x.shape[a] for x, a in zip(operands, axes, strict=True) if a is not None)
        first, second = (
            jnp.broadcast_to(x, (size, *x.shape)) if a is None else jnp.moveaxis(x, a, 0)
            for x, a in zip(operands, axes, strict=True)
        )
        if params["form"] == "lax" and backend.is_cpu():
            return _in_turn(primitive, first, second, params), 0
        # With batched kernels XLA's convolution becomes a grouped one; products stay products.
        form = "patches" if params["form"] == "lax" else params["form"]
        return jax.vmap(functools.partial(implementation, **params | {"form": form}))(
            first, second
        ), 0

    batching.primitive_batchers[primitive] = batch
    return primitive


_STATIC = ("stride", "padding", "form", "image_shape", "kernel_shape")


def _abstract(function, avals):
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    out = jax.eval_shape(function, *shapes)
    return avals[0].update(shape=out.shape, dtype=out.dtype, weak_type=False)


_forward_p = _make_primitive("conv2d", _forward, folds=True)
_input_gradient_p = _make_primitive("conv2d_input_gradient", _input_gradient, folds=True)
_kernel_gradient_p = _make_primitive("conv2d_kernel_gradient", _kernel_gradient, folds=False)

# forward(images, kernel)
ad.defbilinear(
    _forward_p,
    lambda g, _, kernel, **p: _input_gradient_p.bind(g, kernel, **p),
    lambda g, images, _, **p: _kernel_gradient_p.bind(images, g, **p),
)
# input_gradient(cotangent, kernel)
ad.defbilinear(
    _input_gradient_p,
    lambda g, _, kernel, **p: _forward_p.bind(g, kernel, **p),
    lambda g, cotangent, _, **p: _kernel_gradient_p.bind(g, cotangent, **p),
)
# kernel_gradient(images, cotangent)
ad.defbilinear(
    _kernel_gradient_p,
    lambda g, _, cotangent, **p: _input_gradient_p.bind(cotangent, g, **p),
    lambda g, images, _, **p: _forward_p.bind(images, g, **p),
)
