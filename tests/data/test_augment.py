"""DSA augmentation against the reference and against properties its users rely on."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax.data import augment
from ltdd_jax.types import UserError
from tests.golden_files import load_golden, relative_error
from tests.reference import torch_layout

# operation -> (names of its draws in the golden file, largest absolute / relative L2 error)
GOLDEN = {
    "brightness": (["u"], "absolute"),
    "saturation": (["u"], "absolute"),
    "contrast": (["u"], "absolute"),
    "color": (["u_brightness", "u_saturation", "u_contrast"], "absolute"),
    "crop": (["tx", "ty"], "absolute"),
    "cutout": (["ox", "oy"], "absolute"),
    "flip": (["u"], "absolute"),
    "scale": (["sy", "sx"], "relative"),
    "rotate": (["theta_rad"], "relative"),
}


@pytest.mark.golden
@pytest.mark.parametrize("op", GOLDEN)
def test_golden_output_and_gradient(op):
    """Breaks when an axis, a sign, a range or the interpolation departs from the reference."""
    golden = load_golden("dsa")
    names, norm = GOLDEN[op]
    numbers = [jnp.asarray(golden[f"{op}_{name}"]) for name in names]
    images, cotangent = (torch_layout.to_nhwc(golden[name]) for name in ("x", "cotangent"))

    @jax.jit
    def run(images, cotangent, numbers):
        out, vjp = jax.vjp(lambda x: getattr(augment, op)(x, *numbers), images)
        return out, vjp(cotangent)[0]

    for actual, name in zip(run(images, cotangent, numbers), ("out", "grad_x"), strict=True):
        expected = torch_layout.to_nhwc(golden[f"{op}_{name}"])
        if norm == "absolute":
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
        else:
            assert relative_error(actual, expected) < 1e-4


def _images(shape=(3, 8, 8, 2), dtype=jnp.float32, seed=0):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


@functools.partial(jax.jit, static_argnums=0)
def _apply(op, draws, images):
    return augment.apply(draws.replace(op=jnp.int32(0)), images, (op,))


@pytest.mark.parametrize("shape", [(5, 8, 8, 3), (5, 9, 6, 1), (5, 1, 4, 2)])
@pytest.mark.parametrize("op", ["crop", "cutout", "flip", "scale", "rotate"])
def test_transpose_is_the_adjoint(op, shape):
    """<A x, y> = <x, A'y> in float64; breaks when a hand-written transpose misses a pixel."""
    with jax.enable_x64(True):
        draws = augment.draw(jax.random.key(3), shape[0], shape[1:3])
        if op == "rotate":  # any angle, not only those drawn
            draws = draws.replace(angle=jnp.linspace(-3.0, 3.0, shape[0]))
        x, y = _images(shape, jnp.float64), _images(shape, jnp.float64, seed=1)
        out, vjp = jax.vjp(functools.partial(_apply, op, draws), x)
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(jnp.vdot(out, y), jnp.vdot(x, vjp(y)[0]), rtol=1e-12)


@pytest.mark.parametrize("op", ["scale", "rotate"])
def test_interpolation_equals_the_definition_pixel_by_pixel(op):
    """Breaks when rows and columns are exchanged, also where the image is not square."""
    shape = (2, 7, 5, 1)
    draws = augment.draw(jax.random.key(1), shape[0], shape[1:3])
    images = np.asarray(_images(shape), np.float64)
    expected = np.zeros(shape)
    for b in range(shape[0]):
        cos, sin = np.cos(float(draws.angle[b])), np.sin(float(draws.angle[b]))
        matrix = np.array([[cos, -sin], [sin, cos]])
        if op == "scale":
            matrix = np.diag([float(draws.scale_cols[b]), float(draws.scale_rows[b])])
        for i, j in np.ndindex(7, 5):
            x, y = matrix @ [-1 + 2 * j / 4, -1 + 2 * i / 6]
            row, col = (y + 1) / 2 * 6, (x + 1) / 2 * 4
            for r, c in np.ndindex(7, 5):
                weight = max(0, 1 - abs(row - r)) * max(0, 1 - abs(col - c))
                expected[b, i, j] += weight * images[b, r, c]
    np.testing.assert_allclose(_apply(op, draws, jnp.float32(images)), expected, atol=1e-5)


def test_identity_numbers_leave_images_unchanged():
    images = _images()
    ones, zeros = jnp.ones(3), jnp.zeros(3)
    none = jnp.zeros(3, jnp.int32)
    for out in (
        augment.crop(images, none, none),
        augment.flip(images, 0.5 * ones),
        augment.scale(images, ones, ones),
        augment.rotate(images, zeros),
        augment.brightness(images, 0.5 * ones),
    ):
        np.testing.assert_array_equal(out, images)
    for out in (augment.saturation(images, 0.5 * ones), augment.contrast(images, 0.5 * ones)):
        np.testing.assert_allclose(out, images, atol=1e-6)


def test_cutout_is_cut_at_the_borders():
    zero = augment.cutout(jnp.ones((3, 8, 8, 1)), jnp.array([0, 8, 4]), jnp.array([4, 4, 0])) == 0
    np.testing.assert_array_equal(zero[0, :, 4, 0], np.arange(8) < 2)
    np.testing.assert_array_equal(zero[1, :, 4, 0], np.arange(8) >= 6)
    np.testing.assert_array_equal(zero[2, 4, :, 0], np.arange(8) < 2)
    np.testing.assert_array_equal(zero.sum((1, 2, 3)), [8, 8, 8])


@pytest.mark.parametrize("side", [8, 10])  # the hole's side is even, then odd
def test_draws_cover_their_ranges(side):
    """Breaks when an end of a range is lost, gained, or shared by all samples."""
    draws = augment.draw(jax.random.key(0), 4000, (side, 2 * side))
    shift = {8: 1, 10: 1, 16: 2, 20: 3}
    hole = {8: 8, 10: 9, 16: 16, 20: 20}
    for name, low, high in (
        ("shift_rows", -shift[side], shift[side]),
        ("shift_cols", -shift[2 * side], shift[2 * side]),
        ("hole_row", 0, hole[side]),
        ("hole_col", 0, hole[2 * side]),
    ):
        values = getattr(draws, name)
        np.testing.assert_array_equal(np.unique(values), np.arange(low, high + 1), err_msg=name)
        assert values.dtype == jnp.int32
    angle = np.deg2rad(15)
    for name, low, high in (
        ("brightness", 0, 1),
        ("saturation", 0, 1),
        ("contrast", 0, 1),
        ("flip", 0, 1),
        ("scale_rows", 1 / 1.2, 1.2),
        ("scale_cols", 1 / 1.2, 1.2),
        ("angle", -angle, angle),
    ):
        values = np.asarray(getattr(draws, name), np.float64)
        width = high - low
        assert low - 1e-7 <= values.min() < low + 0.01 * width, name
        assert high - 0.01 * width < values.max() < high + 1e-7, name
        assert abs(values.mean() - (low + high) / 2) < 0.03 * width, name
    floats = np.stack([x for x in jax.tree.leaves(draws) if x.dtype == jnp.float32])
    assert np.abs(np.corrcoef(floats) - np.eye(len(floats))).max() < 0.1  # no number is shared


def test_every_operation_of_the_strategy_is_drawn_and_no_other():
    ops = augment.parse_strategy("flip_crop_cutout")
    drawn = jax.vmap(lambda key: augment.draw(key, 1, (4, 4), ops).op)(
        jax.random.split(jax.random.key(0), 300)
    )
    counts = np.bincount(drawn, minlength=3)
    assert len(counts) == 3 and counts.min() > 70
    images = _images()
    draws = augment.draw(jax.random.key(1), 3, (8, 8), ops)
    for index, op in enumerate(ops):
        out = augment.apply(draws.replace(op=jnp.int32(index)), images, ops)
        np.testing.assert_array_equal(out, _apply(op, draws, images))
        assert not np.array_equal(out, images)


def test_the_batch_shares_the_operation_but_not_the_numbers():
    augmented = augment.make_augment("crop_scale_rotate")(jax.random.key(2), jnp.ones((6, 8, 8, 1)))
    assert len(np.unique(np.asarray(augmented).reshape(6, -1), axis=0)) > 1


@pytest.mark.parametrize("always", ["", "color_cutout"])
def test_siamese_calls_with_one_key_transform_batches_of_any_size_alike(always):
    """Breaks when real and synthetic images get numbers of their own, or every call the same."""
    twins = augment.make_augment("_".join(augment.OPS), always=always, siamese=True)
    image = _images((1, 8, 8, 2))
    few, many = (jnp.concatenate([image] * n) for n in (2, 5))
    both = jax.jit(lambda key: (twins(key, few), twins(jax.random.clone(key), many)))
    outcomes = set()
    for seed in range(12):
        a, b = (np.asarray(x) for x in both(jax.random.key(seed)))
        for other in (*a, *b):
            np.testing.assert_array_equal(other, a[0])
        outcomes.add(a[0].tobytes())
    assert len(outcomes) > 8


def test_operations_that_are_always_applied_come_before_the_drawn_one():
    """Breaks when `always` is one more choice, or its numbers are not those of the draw."""
    images, key = _images((3, 8, 8, 2)), jax.random.key(2)
    found = augment.make_augment("crop", always="color_cutout")(key, images)
    draws = augment.draw(jax.random.clone(key), 3, (8, 8), ("crop",))
    expected = augment.color(images, draws.brightness, draws.saturation, draws.contrast)
    expected = augment.cutout(expected, draws.hole_row, draws.hole_col)
    expected = augment.crop(expected, draws.shift_rows, draws.shift_cols)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_empty_strategy_is_the_identity():
    images = _images()
    assert augment.make_augment("")(jax.random.key(0), images) is images
    draws = augment.draw(jax.random.key(0), 3, (8, 8), ())
    assert augment.apply(draws, images, ()) is images


@pytest.mark.parametrize("strategy", ["colour", "flip__crop", "flip_", "Flip"])
def test_unknown_operation_is_refused(strategy):
    with pytest.raises(UserError, match=r"--config\.augment\.strategy"):
        augment.parse_strategy(strategy)


def _second_derivative(images, draws):
    """Forward over reverse through an augmented network, as the distillation needs it."""
    weights = jnp.sin(jnp.arange(images[0].size * 2, dtype=images.dtype)).reshape(-1, 2)

    def inner_gradient(weights, images):
        def loss(weights):
            features = augment.apply(draws, images).reshape(len(images), -1)
            return jnp.sum(jnp.tanh(features @ weights) ** 2)

        return jax.grad(loss)(weights)

    def inner_product(images):
        return jax.jvp(lambda w: inner_gradient(w, images), (weights,), (weights,))[1]

    tangent = jax.jvp(lambda x: inner_gradient(weights, x), (images,), (images,))[1]
    return tangent, jax.grad(lambda x: jnp.sum(inner_product(x)))(images)


def test_vmap_with_different_operations_equals_a_loop():
    """Also of first and second derivatives; breaks when a rule for batching is wrong."""
    keys = jax.random.split(jax.random.key(5), 12)
    draws = jax.vmap(lambda key: augment.draw(key, 2, (6, 6)))(keys)
    assert len(np.unique(draws.op)) >= 4
    images = _images((12, 2, 6, 6, 1))
    batched = jax.jit(jax.vmap(_second_derivative))(images, draws)
    shared = jax.jit(jax.vmap(_second_derivative, in_axes=(None, 0)))(images[0], draws)
    single = jax.jit(_second_derivative)
    for i in range(12):
        draw = jax.tree.map(lambda leaf, i=i: leaf[i], draws)
        for batch, one in ((batched, single(images[i], draw)), (shared, single(images[0], draw))):
            for actual, expected in zip(batch, one, strict=True):
                np.testing.assert_allclose(actual[i], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("op", ["color", "rotate"])
def test_derivatives_agree_with_finite_differences(op):
    with jax.enable_x64(True):
        draws = augment.draw(jax.random.key(4), 2, (5, 5))
        images = _images((2, 5, 5, 3), jnp.float64)
        fun = jax.jit(lambda x: jnp.tanh(_apply(op, draws, x)))
        jax.test_util.check_grads(fun, (images,), order=2, modes=["fwd", "rev"])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_dtype_of_the_images_is_kept(dtype):
    draws = augment.draw(jax.random.key(0), 3, (8, 8))
    for op in augment.OPS:
        assert _apply(op, draws, _images(dtype=dtype)).dtype == dtype


def test_second_call_compiles_nothing():
    run = jax.jit(chex.assert_max_traces(augment.make_augment("_".join(augment.OPS)), n=1))
    for seed in range(3):
        run(jax.random.key(seed), _images())


@pytest.mark.parametrize("mirror", [False, True])
def test_crop_and_flip_shift_and_mirror_if_allowed(mirror):
    """Breaks when digits are mirrored, shifts go too far, or all images move alike."""
    image = np.random.default_rng(0).normal(size=(1, 16, 12, 2)).astype(np.float32)
    many = np.repeat(image, 200, axis=0)
    out = np.asarray(jax.jit(augment.make_crop_flip(mirror=mirror))(jax.random.key(0), many))
    padded = np.pad(image[0], ((2, 2), (2, 2), (0, 0)))
    known = {
        (row, col, side): padded[2 + row : 18 + row, 2 + col : 14 + col][:, ::side]
        for row in range(-2, 3)
        for col in range(-2, 3)
        for side in (1, -1)
    }
    seen = [[name for name, x in known.items() if np.array_equal(x, one)] for one in out]
    assert all(len(names) == 1 for names in seen)
    names = {names[0] for names in seen}
    assert len(names) > (40 if mirror else 20)
    assert {side for *_, side in names} == ({1, -1} if mirror else {1})
