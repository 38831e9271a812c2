"""Compiles the steps of a run for TPU chips that are not here, on any machine with `libtpu`.

    python benchmarks/compile_for.py --topology v5e:2x2 --results benchmarks/results/tpu_compiled
        [--only distill] [--precision bfloat16] [--form shifts] [--small]

Needs the extra `tpu` (`pip install -e ".[tpu]"`) and no chip. Every piece, one step at the sizes of
a published cell in one precision, is written as soon as it is compiled; the same command continues
with what is missing and writes the page README.md from all files. What is reported: seconds to
trace and lower and to compile, bytes of arguments, results and temporaries on each chip beside
its memory, FLOPs, the cycles that the compiler expects, and the instructions in which chips
exchange data. FLOPs and cycles count the body of a loop once.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable

os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU whose metadata to ask for
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor one that two could disturb

import compiled_page
import jax
import program_text
import programs
import timing
from jax.experimental import topologies

from ltdd_jax import backend

ROOT = pathlib.Path(__file__).resolve().parents[1]
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of chip.

    Attributes:
      memory_bytes: of one device as JAX sees it.
      source: of this number.
      options: of the topology; those that a run on such a machine has.
    """

    memory_bytes: int
    source: str
    options: tuple[tuple[str, object], ...] = ()


CHIPS = {
    "v4": Chip(
        32 * _GIB,
        "cloud.google.com/tpu/docs/v4: 32 GiB HBM2",
        (("chip_config_name", "megacore"), ("chips_per_host_bounds", (2, 2, 1))),
    ),
    "v5e": Chip(16 * _GIB, "cloud.google.com/tpu/docs/v5e: 16 GB HBM2"),
    "v5p": Chip(95 * _GIB, "cloud.google.com/tpu/docs/v5p: 95 GB HBM2e"),
    "v6e": Chip(32 * _GIB, "cloud.google.com/tpu/docs/v6e: 32 GB HBM"),
}
SMALL = programs.Sizes(
    width=4,
    depth=2,
    side=8,
    class_counts=(7, 4, 2),
    ipc=2,
    distill_batch=4,
    student_steps=2,
    iterations=2,
    expert_batch=4,
    group=4,
    seeds=2,
    evaluation_epochs=2,
)


def list_pieces(small: bool) -> dict[str, Callable[..., programs.Program]]:
    """Name -> what makes the program from a network (function of sizes) and sizes."""
    sizes = SMALL if small else programs.Sizes()
    sets = {"ipc2": sizes} if small else {
        "ipc10": sizes, "ipc50": dataclasses.replace(sizes, ipc=50)
    }  # fmt: skip
    pieces = {}
    few = dataclasses.replace(sizes, student_steps=2 if small else 8)
    pieces["phase_exact"] = lambda make: programs.phase(make(few), few, gradient="exact")
    for of_set, its in sets.items():
        for gradient in ("exact", "two_pass"):
            pieces[f"distill_{gradient}_{of_set}"] = lambda make, its=its, gradient=gradient: (
                programs.distillation(make(its), its, gradient=gradient)
            )
    for stage in ("representation", "classifier"):
        pieces[f"expert_epoch_{stage}"] = lambda make, stage=stage: programs.expert_epoch(
            make(sizes), sizes, stage=stage
        )
    for of_set, its in sets.items():
        pieces[f"evaluate_{of_set}"] = lambda make, its=its: programs.evaluation_piece(
            make(its), its
        )
    return pieces


def describe_topology(name: str) -> tuple[Chip, tuple[jax.Device, ...]]:
    """The chip of a topology such as "v5e:2x2", and the devices.

    Raises:
      SystemExit: the chip or the topology is not known or has several hosts, or libtpu is absent.
    """
    kind = name.partition(":")[0]
    if kind not in CHIPS:
        raise SystemExit(f"--topology must begin with one of {', '.join(CHIPS)}, not {kind!r}")
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=name, **dict(CHIPS[kind].options)
        )
    except (RuntimeError, NotImplementedError) as error:
        raise SystemExit(
            f"--topology={name} cannot be had ({error}); it needs the wheel libtpu "
            '(pip install -e ".[tpu]") and a shape such as v5e:2x2 or v4:2x2x1'
        ) from error
    if hosts := len({device.process_index for device in found.devices}) - 1:
        raise SystemExit(f"--topology={name} has {hosts + 1} hosts; give one of a single host")
    return CHIPS[kind], tuple(found.devices)


def compile_piece(make: Callable, *, precision: str, form: str) -> dict:
    """Compiles one program; what is said about it, or why it failed."""
    dtype = timing.set_precision(precision)
    start = time.perf_counter()
    program = make(lambda sizes: programs.make_network(sizes, form=form, dtype=dtype))
    lowered = program.lower()
    middle = time.perf_counter()
    record = {
        "precision": precision,
        "form": form,
        "chips": program.mesh.size,
        "lower_seconds": middle - start,
        "program_lines": lowered.as_text().count("\n"),
    }
    middle, busy = time.perf_counter(), time.process_time()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        return record | {"failed": " ".join(str(error).split())[:600]}
    record["compile_seconds"] = time.perf_counter() - middle
    record["compile_core_seconds"] = time.process_time() - busy
    memory, cost, text = compiled.memory_analysis(), compiled.cost_analysis(), compiled.as_text()
    return record | {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flops": cost["flops"],
        "bytes_accessed": cost["bytes accessed"],
        "estimated_cycles": program_text.estimate_cycles(text),
        "collectives": program_text.find_collectives(text),
    }


def describe_origin() -> dict[str, str]:
    """Machine, versions and commit."""
    with contextlib.suppress(ImportError):
        import libtpu

        return timing.describe_machine() | {"libtpu": libtpu.__version__, "commit": _commit()}
    return timing.describe_machine() | {"commit": _commit()}


def _commit():
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--results", type=pathlib.Path, required=True)
    parser.add_argument("--precision", default=",".join(reversed(timing.PRECISIONS)))
    parser.add_argument("--form", default="auto", help="of the convolution")
    parser.add_argument("--only", default="", help="pieces whose name contains this")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    chip, devices = describe_topology(args.topology)
    args.results.mkdir(parents=True, exist_ok=True)
    origin = describe_origin()
    for precision in args.precision.split(","):
        for piece, make in list_pieces(args.small).items():
            name = f"{args.topology.replace(':', '_')}-{piece}-{args.form}-{precision}"
            path = args.results / f"{name}.json"
            if args.only not in piece or path.exists():
                continue
            print(f"{name} ...", flush=True)
            with backend.assume("tpu", devices, chip.memory_bytes):
                record = compile_piece(make, precision=precision, form=args.form)
            record |= origin | {
                "piece": piece,
                "topology": args.topology,
                "device": devices[0].device_kind,
                "memory_bytes": chip.memory_bytes,
                "memory_source": chip.source,
                "small": args.small,
            }
            path.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")
            print(f"{name}: {record.get('failed') or compiled_page.say(record)}", flush=True)
    (args.results / "README.md").write_text(compiled_page.render(args.results))


if __name__ == "__main__":
    main()
