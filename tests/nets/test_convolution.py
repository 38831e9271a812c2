"""Every form of the convolution against XLA's own, in value and derivatives of any order."""

import jax
import jax.numpy as jnp
import pytest

from ltdd_jax.nets import convolution
from tests.golden_files import relative_error

# (height, width, channels in, channels out, kernel side, stride, padding)
SHAPES = [
    (6, 6, 3, 4, 3, 1, 1),  # the ConvNet's first layer
    (5, 7, 9, 4, 3, 1, 1),  # more channels than the thin path takes
    (7, 6, 2, 3, 5, 1, 2),
    (8, 8, 3, 4, 5, 2, 2),
    (7, 7, 9, 3, 3, 2, 1),  # stride leaves a rest
    (5, 5, 10, 2, 1, 1, 0),
    (6, 6, 4, 3, 1, 2, 0),
    (8, 8, 3, 2, 5, 1, 0),
]


def draw_case(shape, lead=()):
    height, width, inputs, outputs, side, stride, padding = shape
    keys = jax.random.split(jax.random.key(sum(shape)), 2)
    images = jax.random.normal(keys[0], (*lead, 2, height, width, inputs))
    kernel = jax.random.normal(keys[1], (*lead, side, side, inputs, outputs))
    return images, kernel, {"stride": stride, "padding": padding}


def oracle(images, kernel, *, stride, padding):
    return jax.lax.conv_general_dilated(
        images,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def scalar(conv, options):
    """A nonlinear number of images and kernel, so that no derivative vanishes."""
    return lambda images, kernel: jnp.sum(jnp.sin(conv(images, kernel, **options)))


def assert_close(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert relative_error(a, b) < 1e-4


def with_form(form):
    return lambda images, kernel, **options: convolution.conv2d(
        images, kernel, form=form, **options
    )


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_equal_the_library(form, shape):
    images, kernel, options = draw_case(shape)
    ours = jax.jit(jax.value_and_grad(scalar(with_form(form), options), argnums=(0, 1)))
    theirs = jax.value_and_grad(scalar(oracle, options), argnums=(0, 1))
    assert_close(ours(images, kernel), theirs(images, kernel))


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[1], SHAPES[4]])
def test_gradient_of_a_directional_derivative_equals_the_library(form, shape):
    """The derivative which the adjoint of the unroll takes; breaks with any transpose rule."""
    images, kernel, options = draw_case(shape)
    tangents = (jnp.cos(images), jnp.cos(kernel))

    def directional(conv):
        function = scalar(conv, options)
        return lambda *primals: jax.jvp(jax.grad(function, 1), primals, tangents)[1].sum()

    ours = jax.jit(jax.grad(directional(with_form(form)), argnums=(0, 1)))
    theirs = jax.grad(directional(oracle), argnums=(0, 1))
    assert_close(ours(images, kernel), theirs(images, kernel))


@pytest.mark.parametrize("form", convolution.FORMS)
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("shape", [SHAPES[1]])
def test_vmap_equals_a_loop(form, axes, shape):
    """Breaks when a batching rule folds or pairs the wrong axes."""
    images, kernel, options = draw_case(shape, lead=(3,))
    arguments = [x if axis == 0 else x[0] for x, axis in zip((images, kernel), axes, strict=True)]
    function = jax.grad(scalar(with_form(form), options), argnums=(0, 1))
    batched = jax.jit(jax.vmap(function, in_axes=axes))(*arguments)
    for i in range(3):
        one = [x[i] if axis == 0 else x for x, axis in zip(arguments, axes, strict=True)]
        expected = jax.grad(scalar(oracle, options), argnums=(0, 1))(*one)
        assert_close([x[i] for x in batched], list(expected))


def test_many_kernels_take_the_looped_path():
    """Beyond the unrolled number the batch is a compiled loop; results must not change."""
    count = convolution._UNROLLED + 1
    images, kernel, options = draw_case(SHAPES[1], lead=(count,))
    out = jax.vmap(lambda x, k: convolution.conv2d(x, k, form="lax", **options))(images, kernel)
    expected = jax.vmap(lambda x, k: oracle(x, k, **options))(images, kernel)
    assert_close(out, expected)


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="patches"):
        convolution.conv2d(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 1)), form="fft")
