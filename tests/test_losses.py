"""Losses and both their gradients against the reference and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltdd_jax import losses
from tests.golden_files import load_golden, relative_error


@pytest.mark.golden
@pytest.mark.parametrize("name", ["soft_ce", "weighted_soft_ce", "balanced_softmax"])
def test_golden_soft_losses(name):
    """Breaks when softmax, the class weights or the mean are applied differently."""
    golden = load_golden("losses")
    weights = golden["weights"]
    loss = {
        "soft_ce": losses.soft_cross_entropy,
        "weighted_soft_ce": lambda s, y: losses.weighted_soft_cross_entropy(s, y, weights),
        "balanced_softmax": lambda s, y: losses.balanced_softmax_cross_entropy(s, y, weights),
    }[name]
    value, grads = jax.value_and_grad(lambda *args: loss(*args).mean(), argnums=(0, 1))(
        jnp.asarray(golden["logits"]), jnp.asarray(golden["label_logits"])
    )
    assert relative_error(value, golden[name]) < 1e-5
    assert relative_error(grads[0], golden[f"{name}_dlogits"]) < 1e-5
    assert relative_error(grads[1], golden[f"{name}_dlabels"]) < 1e-5


@pytest.mark.golden
def test_golden_hard_loss():
    golden = load_golden("losses")
    loss = lambda s: losses.cross_entropy(s, golden["hard_labels"]).mean()  # noqa: E731
    value, grad = jax.value_and_grad(loss)(jnp.asarray(golden["logits"]))
    assert relative_error(value, golden["hard_ce"]) < 1e-5
    assert relative_error(grad, golden["hard_ce_dlogits"]) < 1e-5


@pytest.mark.golden
def test_golden_class_weights():
    golden = load_golden("losses")
    counts = golden["class_counts"]
    assert relative_error(losses.class_frequencies(counts), golden["weights"]) < 1e-6
    expected = golden["first_weight_factor_ex"]
    assert relative_error(losses.class_frequencies(counts, 50.0), expected) < 1e-6


def test_soft_loss_of_a_sharp_label_is_the_hard_loss():
    logits = jax.random.normal(jax.random.key(0), (5, 4))
    labels = jnp.array([0, 3, 1, 1, 2])
    sharp = 100.0 * jax.nn.one_hot(labels, 4)
    np.testing.assert_allclose(
        losses.soft_cross_entropy(logits, sharp), losses.cross_entropy(logits, labels), rtol=1e-5
    )


def test_hard_logits_are_hard_labels_to_the_loss():
    """Breaks when the logits leave a share to the other classes, also with many of them."""
    labels = np.array([2, 0, 999])
    logits = losses.hard_label_logits(labels, 1000)
    assert logits.dtype == np.float32 and logits.shape == (3, 1000)
    outputs = 3 * jax.random.normal(jax.random.key(0), (3, 1000))
    soft = losses.soft_cross_entropy(outputs, jnp.asarray(logits))
    np.testing.assert_allclose(soft, losses.cross_entropy(outputs, jnp.asarray(labels)), rtol=1e-6)
