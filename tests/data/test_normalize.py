"""Whitening and normalisation: reference values, inverses, files."""

import pathlib
import time

import jax
import numpy as np
import pytest
from scipy import linalg

from ltdd_jax.data import normalize, sources
from ltdd_jax.types import Interrupted, UserError
from tests.golden_files import load_golden, relative_error


def _to_nhwc(images: np.ndarray) -> np.ndarray:
    return images.transpose(0, 2, 3, 1)


def _to_hwc_features(matrix: np.ndarray, channels: int, height: int, width: int) -> np.ndarray:
    """Reorders the trailing axis, or both axes of a square matrix, from (c,h,w) to (h,w,c)."""
    order = np.arange(channels * height * width).reshape(channels, height, width)
    order = order.transpose(1, 2, 0).ravel()
    return matrix[order][:, order] if matrix.shape[0] == matrix.shape[1] else matrix[:, order]


def _random_images(num: int = 60, side: int = 4, channels: int = 3) -> np.ndarray:
    generator = np.random.default_rng(3)
    smooth = generator.integers(0, 200, (num, 1, 1, channels))
    noise = generator.integers(0, 56, (num, side, side, channels))
    return (smooth + noise).astype(np.uint8)


@pytest.mark.golden
def test_golden_zca_fit():
    """eps under the root, covariance over N, or a forgotten mean each miss these by far."""
    golden = load_golden("zca")
    shape = golden["images"].shape[1:]
    pre = normalize.fit(_to_nhwc(golden["images"]), zca_eps=float(golden["eps"]))
    assert relative_error(pre.zca_mean, _to_hwc_features(golden["mean"], *shape)[0]) < 1e-5
    for actual, name in (
        (pre.zca_transform, "transform"),
        (pre.zca_transform, "transform_f64"),
        (pre.zca_inverse, "transform_inv"),
    ):
        assert actual.dtype == np.float32
        assert relative_error(actual, _to_hwc_features(golden[name], *shape)) < 1e-4, name


@pytest.mark.golden
def test_golden_zca_apply_and_invert():
    golden = load_golden("zca")
    images = _to_nhwc(golden["images"])
    pre = normalize.fit(images, zca_eps=float(golden["eps"]))
    whitened = normalize.apply(pre, images)
    assert relative_error(whitened, _to_nhwc(golden["whitened"])) < 1e-4
    pixels = np.rint(np.clip(_to_nhwc(golden["inverse"]), 0, 1) * 255)
    difference = np.abs(normalize.invert(pre, whitened) - pixels)
    assert difference.max() <= 1  # a value at x.5 may round either way
    assert np.mean(difference != 0) < 1e-3


@pytest.mark.parametrize("whiten", [True, False])
def test_stored_pixels_become_the_same_input_where_rows_are_taken(whiten):
    """Breaks when a constant is left out, or when whitening is not of full precision."""
    images = _random_images()
    pre = normalize.fit(images, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), whiten=whiten)
    expected = normalize.apply(pre, images)
    stored = jax.device_put(normalize.StoredImages(images, pre))
    assert stored.pixels.dtype == np.uint8
    rows = np.array([[3, 0], [59, 3]])
    found = jax.jit(lambda s, r: s[r])(stored, rows[0])
    assert found.dtype == np.float32
    assert relative_error(found, expected[rows[0]]) < 1e-6
    per_network = jax.vmap(lambda s, r: s[r], in_axes=(None, 0))(stored, rows)
    assert relative_error(per_network, expected[rows]) < 1e-6


@pytest.mark.golden
def test_golden_mismatched_test_images():
    """Normalised test images whitened by the transform of un-normalised training images (D3)."""
    golden = load_golden("zca")
    pre = normalize.fit(_to_nhwc(golden["images"]), zca_eps=float(golden["eps"]))
    mean, std = sources.find_source("cifar10").constants
    expected = _to_nhwc(golden["test_whitened"])
    normalised = _to_nhwc(golden["test_normalised"])
    assert relative_error(normalize.apply(pre, normalised), expected) < 1e-4
    pixels = normalised * np.float32(std) + np.float32(mean)
    mismatched = normalize.mismatch_test(pre, mean, std)
    assert relative_error(normalize.apply(mismatched, pixels), expected) < 1e-4
    assert relative_error(normalize.apply(pre, pixels), expected) > 0.1


def test_blocks_change_nothing(monkeypatch):
    """Blocks of 7 rows against one block: a row lost at a border would show."""
    images = _random_images()
    whole = normalize.fit(images)
    expected = normalize.apply(whole, images)
    monkeypatch.setattr(normalize, "_BLOCK_VALUES", 7 * images[0].size)
    pre = normalize.fit(images)
    np.testing.assert_allclose(pre.zca_transform, whole.zca_transform, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(normalize.apply(whole, images), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(normalize.invert(whole, expected), images)


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize(
    "constants", [(None, None), sources.find_source("cifar10").constants, ((), ())]
)
def test_invert_undoes_apply(whiten, constants):
    images = _random_images()
    pre = normalize.fit(images, mean=constants[0], std=constants[1], whiten=whiten)
    prepared = normalize.apply(pre, images)
    assert prepared.dtype == np.float32
    np.testing.assert_array_equal(normalize.invert(pre, prepared), images)
    assert normalize.invert(pre, prepared * 100).dtype == np.uint8


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("whiten", [False, True])
def test_projection_clips_and_rounds_pixels(whiten, few):
    """As inverting, clipping and applying would; breaks when valid pixels are moved too."""
    images = _random_images(num=20 if few else 60)
    pre = normalize.fit(images, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), whiten=whiten)
    generator = np.random.default_rng(5)
    pixels = generator.uniform(0.05, 0.95, (4, 4, 4, 3)).astype(np.float32)
    pixels[2:] = generator.uniform(-0.5, 1.5, (2, 4, 4, 3))
    given = normalize.apply(pre, pixels)
    project = jax.jit(normalize.project)
    clipped, rounded = (np.asarray(project(pre, given, r)) for r in (False, True))
    np.testing.assert_array_equal(clipped[:2], given[:2])
    expected = normalize.apply(pre, np.clip(pixels, 0, 1))
    np.testing.assert_allclose(clipped, expected, atol=2e-4)
    assert np.abs(clipped[2:] - given[2:]).max() > 0.1
    eight_bit = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    np.testing.assert_allclose(rounded, normalize.apply(pre, eight_bit), atol=2e-4)
    np.testing.assert_array_equal(normalize.invert(pre, rounded), eight_bit)


def test_whitened_covariance():
    """The eigenvalues of the whitened covariance are s / (s + eps)."""
    images = _random_images(num=300)
    rows = normalize.apply(normalize.fit(images, zca_eps=0.01), images).reshape(300, -1)
    plain = (images / 255.0).reshape(300, -1)
    values = np.linalg.eigvalsh(np.cov(plain.T))
    whitened = np.linalg.eigvalsh(np.cov(rows.T))
    np.testing.assert_allclose(whitened, values / (values + 0.01), atol=1e-4)


def _few_images(num: int = 9) -> np.ndarray:
    """Fewer than half as many as pixel values, one of them twice."""
    images = _random_images(num=num, side=6)
    images[1] = images[0]
    return images


def _square_root(images: np.ndarray, mean, std, eps: float, power: float) -> np.ndarray:
    """(Cov + eps)^power by NumPy's covariance and SciPy's matrix power, float64."""
    pixels = (images / 255.0 - np.float32(mean)) / np.float32(std)
    covariance = np.cov(pixels.reshape(len(images), -1).T)
    root = linalg.fractional_matrix_power(covariance + eps * np.eye(len(covariance)), power)
    return root.real


@pytest.mark.parametrize("eps", [0.1, 1e-3])
def test_whitening_of_few_images_is_that_of_all_directions(eps):
    """Breaks when a direction without data is scaled wrongly, or a factor of the basis is lost."""
    images, mean, std = _few_images(), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    pre = normalize.fit(images, mean=mean, std=std, zca_eps=eps)
    assert pre.zca_transform is None and pre.zca_basis.shape == (108, 7)
    others = _random_images(num=200, side=6)[-20:]  # with parts outside the span of the nine
    pixels = ((others / 255.0 - np.float32(mean)) / np.float32(std)).reshape(20, -1)
    centred = ((images / 255.0 - np.float32(mean)) / np.float32(std)).reshape(9, -1).mean(0)
    expected = (pixels - centred) @ _square_root(images, mean, std, eps, -0.5)
    white = normalize.apply(pre, others)
    assert relative_error(white, expected.reshape(white.shape)) < 1e-5
    np.testing.assert_array_equal(normalize.invert(pre, white), others)
    stored = jax.device_put(normalize.StoredImages(others, pre))
    assert relative_error(jax.jit(lambda s, r: s[r])(stored, np.arange(20)), white) < 1e-6


def test_equal_images_are_whitened():
    """No direction has any variance: the images become zero and come back."""
    images = np.full((5, 4, 4, 3), 77, np.uint8)
    pre = normalize.fit(images)
    assert np.abs(normalize.apply(pre, images)).max() < 1e-5
    np.testing.assert_array_equal(normalize.invert(pre, normalize.apply(pre, images)), images)


def test_hundreds_of_tiny_imagenet_pictures_are_whitened_in_a_moment():
    """Breaks when a 12288 x 12288 matrix is made for 168 pictures: minutes and gigabytes."""
    images = np.random.default_rng(0).integers(0, 256, (168, 64, 64, 3), np.uint8)
    start = time.monotonic()
    pre = normalize.fit(images)
    assert time.monotonic() - start < 10
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(pre)) < 10e6
    np.testing.assert_array_equal(
        normalize.invert(pre, normalize.apply(pre, images[:9])), images[:9]
    )


@pytest.mark.parametrize("side", [256, 1024])
def test_too_large_for_whitening_is_said_before_memory_is_taken(side, monkeypatch):
    """Breaks when the matrix is allocated first, or the settings that help are not named."""
    images = np.broadcast_to(np.uint8(0), (10**6, side, side, 3))  # takes no memory
    monkeypatch.setattr(normalize, "_normalize", None)
    with pytest.raises(UserError) as error:
        normalize.fit(images)
    assert f"images of {side} x {side} pixels needs about" in str(error.value)
    assert "--config.data.whiten=off" in str(error.value)
    assert "--config.data.image_size" in str(error.value)
    with pytest.raises(UserError, match=r"network input needs .*--config.data.image_size"):
        normalize.apply(normalize.fit(images[:2], whiten=False), images)


def test_whitening_is_chosen_by_size():
    """Breaks when large pictures are whitened by default, or CIFAR and Tiny-ImageNet are not."""
    for shape, rows in (((32, 32, 3), 50_000), ((64, 64, 3), 100_000), ((64, 64, 3), 168)):
        assert normalize.choose_whitening(shape, rows)[0]
    for shape, rows, reason in (
        ((128, 128, 3), 168, "128 x 128 pixels, which are more than 64 x 64"),
        ((32, 32, 3), 1, "at least two images"),
    ):
        chosen, said = normalize.choose_whitening(shape, rows)
        assert not chosen and reason in said


def test_whitening_speaks_and_can_be_stopped(monkeypatch):
    """Breaks when a long whitening is silent or deaf."""
    monkeypatch.setattr(normalize, "_SPOKEN_BYTES", 0)
    for images in (_random_images(), _few_images()):
        said, asked = [], []
        normalize.fit(images, say=said.append, check=lambda asked=asked: asked.append(1))
        assert said[0].startswith(f"whitening (ZCA) {len(images)} images of")
        assert len(asked) >= 2

        def stop():
            raise Interrupted(2)

        with pytest.raises(Interrupted):
            normalize.fit(images, check=stop)


def test_file_round_trip(tmp_path):
    for images, whiten in ((_random_images(), True), (_random_images(), False), (_few_images(), 1)):
        pre = normalize.fit(images, whiten=bool(whiten))
        normalize.save(pre, tmp_path / "preprocessing.npz")
        loaded = normalize.load(tmp_path / "preprocessing.npz")
        jax.tree.map(np.testing.assert_array_equal, loaded, pre)  # also fails on another structure
    assert [file.name for file in tmp_path.iterdir()] == ["preprocessing.npz"]


def test_files_of_earlier_versions_are_read(tmp_path):
    """They have the two matrices always, whatever the number of images."""
    generator = np.random.default_rng(0)
    old = {
        "mean": np.zeros(1, np.float32),
        "std": np.ones(1, np.float32),
        "zca_mean": generator.random(4, np.float32),
        "zca_transform": generator.random((4, 4), np.float32),
        "zca_inverse": generator.random((4, 4), np.float32),
    }
    np.savez(tmp_path / "preprocessing.npz", **old)
    pre = normalize.load(tmp_path / "preprocessing.npz")
    images = generator.integers(0, 256, (3, 2, 2, 1), np.uint8)
    flat = images.reshape(3, 4) / np.float32(255) - old["zca_mean"]
    white = normalize.apply(pre, images)
    np.testing.assert_allclose(white.reshape(3, 4), flat @ old["zca_transform"], rtol=1e-5)


@pytest.mark.parametrize("few", [False, True])
def test_file_that_lost_an_array_is_damaged(few, tmp_path):
    """Breaks when images come out unwhitened because a damaged archive hid an array."""
    pre = normalize.fit(_few_images() if few else _random_images())
    arrays = {name: array for name, array in vars(pre).items() if array is not None}
    lost = [name for name in arrays if name.startswith("zca")]
    for name in ("mean", *lost):
        rest = {key: array for key, array in arrays.items() if key != name}
        np.savez(tmp_path / "preprocessing.npz", **rest)
        with pytest.raises(UserError, match="cannot be read"):
            normalize.load(tmp_path / "preprocessing.npz")


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "preprocessing.npz"
    normalize.save(normalize.fit(_random_images()), path)
    content = path.read_bytes()

    def fail(self, data):
        pathlib.Path(self).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(type(normalize.epath.Path(path)), "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        normalize.save(normalize.fit(_random_images(), whiten=False), path)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 half a file"])
def test_unreadable_file(content, tmp_path):
    path = tmp_path / "preprocessing.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        normalize.load(path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": (0.5,), "std": (0.2,)}, "one number for each of the 3 channels"),
        ({"mean": (0.5,) * 3, "std": (0.2, 0.0, 0.2)}, "std > 0"),
        ({"zca_eps": 0.0}, "data.zca_eps is 0.0, but must be > 0"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        normalize.fit(_random_images(), **settings)


def test_one_image_cannot_be_whitened():
    with pytest.raises(UserError, match="at least two training images"):
        normalize.fit(_random_images(num=1))
