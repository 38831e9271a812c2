"""One module answers which machine a program is for, and can answer for one that is not there."""

import ast
import os
import pathlib

import jax
import psutil
import pytest

import ltdd_jax
from ltdd_jax import backend
from ltdd_jax.nets import convolution
from ltdd_jax.runtime import mesh

PACKAGE = pathlib.Path(ltdd_jax.__file__).parent
ASKING = {"default_backend", "devices", "local_devices", "device_count", "local_device_count"}


def find_questions(tree: ast.Module) -> set[str]:
    """What a module asks JAX about the machine."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "jax"
        and node.attr in ASKING
    }


def test_no_other_module_asks_jax():
    """Breaks when a module goes past `backend`: it would take a CPU's branches in a program
    that is compiled for a TPU."""
    asking = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if find_questions(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert asking == {"backend.py"}
    assert find_questions(ast.parse("x = jax.default_backend() == 'cpu'")) == {"default_backend"}


def test_assumes_another_machine_and_forgets_it():
    """Breaks when an assumption has no effect, or outlives its block after an error."""
    here = backend.is_cpu(), backend.devices(), backend.device_memory()
    some = jax.devices()[2:5]
    with pytest.raises(KeyError), backend.assume("tpu", some, 123):
        assert not backend.is_cpu()
        assert list(backend.devices()) == backend.local_devices() == some
        assert backend.device_memory() == 123
        with backend.assume("cpu"):
            assert backend.is_cpu()
            assert backend.devices() == jax.devices()
        assert not backend.is_cpu() and backend.device_memory() == 123
        raise KeyError
    assert (backend.is_cpu(), backend.devices(), backend.device_memory()) == here


def test_refuses_a_backend_that_is_not_known():
    """Breaks when "cuda", a platform and no backend, is silently taken for an accelerator."""
    with pytest.raises(ValueError, match="cuda"), backend.assume("cuda"):
        pass


def test_mesh_and_group_are_those_of_the_assumed_machine():
    """Breaks when devices or memory of this machine decide about another."""
    some = jax.devices()[:4]
    with backend.assume("tpu", some, 10_000):
        assert list(mesh.make_mesh(8).devices.flat) == some
        # 60 % of 10 kB hold 2 experts of 3 kB on each of 4 devices: 100 in 13 groups of 8.
        assert mesh.choose_group_size(100, 3000) == 8
        assert mesh.choose_lanes(2**30) is None
        assert mesh.choose_iterations_per_call(50) == 10
        assert mesh.free_memory() == 10_000
    with backend.assume("tpu"):
        assert mesh.free_memory() > psutil.virtual_memory().total / 100
    with backend.assume("cpu"):
        assert mesh.choose_lanes(2**30) == 1
        assert mesh.choose_iterations_per_call(50) == 1


def test_convolution_takes_the_branches_of_the_assumed_machine():
    """Breaks when a program for an accelerator computes kernels in turn, or pictures by patches,
    as a CPU does."""
    images = jax.ShapeDtypeStruct((3, 4, 6, 6, 3), "float32")
    kernels = jax.ShapeDtypeStruct((3, 3, 3, 3, 2), "float32")

    def lower(name, batched):
        def convolve(images, kernel):
            return convolution.conv2d(images, kernel, padding=1)

        shapes = (images, kernels)
        if batched:
            convolve = jax.vmap(convolve)
        else:
            shapes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in shapes]
        with backend.assume(name):
            return jax.jit(convolve).trace(*shapes).lower(lowering_platforms=(name,)).as_text()

    assert lower("cpu", False).count("stablehlo.convolution") == 0
    assert lower("tpu", False).count("stablehlo.convolution") == 1
    assert lower("cpu", True).count("stablehlo.dot_general") == 3
    assert lower("tpu", True).count("stablehlo.dot_general") == 1


def test_cores_are_counted_where_the_system_does_not_say_which_are_ours(monkeypatch):
    """Breaks when a run with a budget ends in a traceback on macOS."""
    assert backend.count_cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert backend.count_cores() == 3
    asking = [path for path in PACKAGE.rglob("*.py") if "sched_getaffinity" in path.read_text()]
    assert [path.stem for path in asking] == ["backend"]
