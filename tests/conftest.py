"""Strict settings for the whole suite: JAX promotes nothing silently, no golden test skips."""

import os

import jax

from tests.golden_files import pytest_runtest_makereport  # noqa: F401

# LTDD_TEST_PLATFORM=default runs the tests on the accelerator that JAX finds.
_PLATFORM = os.environ.get("LTDD_TEST_PLATFORM", "cpu")
if _PLATFORM != "default":
    jax.config.update("jax_platforms", _PLATFORM)
if _PLATFORM == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


def pytest_collection_modifyitems(config, items):
    """Leaves the slow tests out, unless they are asked for with -m."""
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
