"""Strict settings for the whole suite: JAX promotes nothing silently, no golden test skips.

Compiling takes longer than computing here. So programs are compiled with few optimisations, unless
LTDD_TEST_OPTIMIZED=1, and are kept for this run of the tests, so that its workers share them.
"""

import atexit
import os
import shutil
import tempfile

_CACHE = "JAX_COMPILATION_CACHE_DIR"
if _CACHE not in os.environ:  # in the process that starts the workers
    os.environ[_CACHE] = tempfile.mkdtemp(prefix="ltdd_tests_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    atexit.register(shutil.rmtree, os.environ[_CACHE], ignore_errors=True)

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.golden_files import pytest_runtest_makereport  # noqa: E402, F401

# LTDD_TEST_PLATFORM=default runs the tests on the accelerator that JAX finds.
_PLATFORM = os.environ.get("LTDD_TEST_PLATFORM", "cpu")
if _PLATFORM != "default":
    jax.config.update("jax_platforms", _PLATFORM)
if _PLATFORM == "cpu":
    jax.config.update("jax_num_cpu_devices", 8)
    few = not os.environ.get("LTDD_TEST_OPTIMIZED")
    jax.config.update("jax_disable_most_optimizations", few)
jax.config.update("jax_default_matmul_precision", "highest")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_debug_key_reuse", True)


def pytest_collection_modifyitems(config, items):
    """Leaves the slow tests out, unless they are asked for with -m or by name."""
    if not config.option.markexpr and not any("::" in argument for argument in config.args):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Workers of -n get long runs of neighbours: what a file compiles and trains is made once."""
    if config.option.dist != "load":  # another way was asked for
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)
