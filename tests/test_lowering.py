"""Every compiled step of a run lowers for accelerators, on a machine that has none."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import jax
import pytest
from jax.sharding import PartitionSpec as P

from ltdd_jax import backend
from ltdd_jax.runtime import mesh
from tests.scripts import load_script

ROOT = pathlib.Path(__file__).parents[1]


programs = load_script("programs")
program_text = load_script("program_text")

TINY = programs.Sizes(
    width=2,
    depth=1,
    side=8,
    class_counts=(7, 4),
    ipc=2,
    distill_batch=3,
    student_steps=2,
    iterations=2,
    expert_batch=4,
    group=2,
    seeds=2,
    evaluation_epochs=2,
)
STEPS = {
    "distillation, exact": lambda net: programs.distillation(net, TINY, gradient="exact"),
    "distillation, two-pass": lambda net: programs.distillation(net, TINY, gradient="two_pass"),
    "start of experts": lambda net: programs.expert_start(net, TINY),
    "representation epoch": lambda net: programs.expert_epoch(net, TINY, stage="representation"),
    "classifier epoch": lambda net: programs.expert_epoch(net, TINY, stage="classifier"),
    "evaluation piece": lambda net: programs.evaluation_piece(net, TINY),
    "prediction": lambda net: programs.prediction(net, TINY),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_step_lowers_for_cuda_and_tpu(name):
    """Breaks when a step uses an operation that one of the platforms does not have, or a branch
    for accelerators does not trace."""
    with backend.assume("tpu", jax.devices()[:1]):
        program = STEPS[name](programs.make_network(TINY, dtype="bfloat16"))
        lowered = program.lower(lowering_platforms=("cuda", "tpu"))
    text = lowered.as_text()
    assert "main" in text and "custom_call @Sharding" not in text
    if name == "representation epoch":
        # Kernels of two experts: products of patches, and pictures that lie there as bytes.
        assert "stablehlo.convolution" not in text and "tensor<11x8x8x3xui8>" in text
    if name.startswith("distillation"):
        assert "stablehlo.convolution" in text


def test_an_epoch_of_spread_experts_exchanges_nothing():
    """Breaks when devices wait for each other within an epoch."""
    with backend.assume("cpu", jax.devices()[:2]):
        program = STEPS["representation epoch"](programs.make_network(TINY))
        assert program.mesh.size == 2
        text = program.lower().compile().as_text()
    assert program_text.find_collectives(text) == {}


def test_collectives_are_found():
    """Breaks when a program whose devices exchange numbers is called free of exchanges."""
    devices = mesh.make_mesh(2)
    total = jax.shard_map(
        lambda x: jax.lax.psum(x, mesh.AXIS), mesh=devices, in_specs=P(mesh.AXIS), out_specs=P()
    )
    text = jax.jit(total).lower(jax.numpy.ones(4)).compile().as_text()
    assert program_text.find_collectives(text) == {"all-reduce": 1}
    started = "  %a.1 = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), dimensions={0}\n"
    done = "  %a.2 = f32[16]{0} all-gather-done(%a.1)\n"
    assert program_text.find_collectives(started + done) == {"all-gather": 1}


def test_cycles_follow_loops_and_choices():
    """Breaks when the parts of a fused instruction are added to the whole, all branches of a
    choice are added up, or a loop's body is left out."""
    lines = (
        "%part (p: f32[2]) -> f32[2] {",
        '  %a = f32[2]{0} add(%p, %p), backend_config={"estimated_cycles":"1000"}',
        "}",
        "%body.1 (p: f32[2]) -> f32[2] {",
        '  %b = f32[2]{0} fusion(%p), calls=%part, backend_config={"estimated_cycles":"7"}',
        "}",
        "%left (p: f32[2]) -> f32[2] {",
        '  %c = f32[2]{0} copy(%p), backend_config={"estimated_cycles":"11"}',
        "}",
        "%right (p: f32[2]) -> f32[2] {",
        '  %d = f32[2]{0} copy(%p), backend_config={"estimated_cycles":"13"}',
        "}",
        "ENTRY %main (p: f32[2], i: s32[]) -> f32[2] {",
        "  %e = f32[2]{0} while(%p), condition=%always, body=%body.1",
        "  %f = f32[2]{0} conditional(%i, %e, %e), branch_computations={%left, %right}",
        '  ROOT %g = f32[2]{0} copy(%f), backend_config={"estimated_cycles":"17"}',
        "}",
        "%always (p: f32[2]) -> pred[] {",
        "}",
    )
    assert program_text.estimate_cycles("\n".join(lines)) == 7 + 13 + 17


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason='compiling for a TPU needs the wheel libtpu: pip install -e ".[tpu]"',
)
@pytest.mark.parametrize("topology", ["v5e:2x2", "v4:2x2x1", "v6e:2x2"])
def test_small_steps_compile_for_tpu_chips(topology, tmp_path):
    """Breaks when the TPU compiler refuses a step, or chips exchange data within an epoch."""
    script = ROOT / "benchmarks" / "compile_for.py"
    command = [sys.executable, str(script), f"--topology={topology}", f"--results={tmp_path}"]
    command += ["--small", "--precision=bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert len(records) == 6 and "## " + topology in (tmp_path / "README.md").read_text()
    for record in records:
        assert "failed" not in record and record["compile_seconds"] > 0
        if record["piece"].startswith("expert_epoch"):
            assert record["chips"] == 4 and record["collectives"] == {}
