"""Takes the numbers of a finished run into docs/results/results.csv and per_class.csv.

    python benchmarks/collect_results.py --workdir=DIR --set=NAME --command='python -m ...' \
        [--pixels=jpeg] [--study=NAME] [--variant=WORDS] [--note=WORDS] [--replace]
        [--rows=KIND,KIND]

Afterwards `python benchmarks/render_results.py` makes the tables and pictures again. Refused are a
run that is not finished, a command that has other settings than the run, and numbers that
contradict those in the file (give --replace if the new ones are right).
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import measured
from command_settings import check_command

from ltdd_jax import backend, config, literature, records
from ltdd_jax.errors import UserError
from ltdd_jax.presets import PRESETS
from ltdd_jax.table import collecting

ROOT = pathlib.Path(__file__).resolve().parents[1]
_MIN_FULL_EPOCHS = 20  # of the whole training set; fewer say nothing about it
_PHOTOS = ("cifar10", "cifar100", "tiny_imagenet", "imagenet")
_SHARED = ("random_real", "random_real_soft", "full_real", "teacher")  # by the sets of a directory
_BY_CLASS = ("random_real", "random_real_soft", "distilled", "initial", "teacher", "full_real")
_METHODS = {"random_real": "random", "random_real_soft": "random", "full_real": "full"}
_MEAN = "mean"
_TELLS = {  # teacher -> whom it tells
    "teacher": "one network, which labels for the students of this block",
    f"teacher_{_MEAN}": "mean logits of the networks, which label for the students of this block",
}
_SECOND, _CURVE, _OTHER = "ii_", "iteration_", "@"  # in the names of rows in reports


@dataclasses.dataclass(frozen=True)
class Said:
    """What the report does not know.

    Attributes:
      command: that made the run.
      commit: of the program.
      run: name of the directory.
      set_name: of the set; "" for the one at the root.
      pixels: "original" or "jpeg".
      machine: in words.
      date: of the report.
      study: that the rows belong to; "" is the common protocol.
      variant: what sets the run apart in it.
      note: for readers.
      flops: of the making of the set.
      expert_seconds: of experts and teachers, where another run of the directory trained them.
    """

    command: str
    commit: str
    run: str
    set_name: str = ""
    pixels: str = ""
    machine: str = ""
    date: str = ""
    study: str = ""
    variant: str = ""
    note: str = ""
    flops: float | None = None
    expert_seconds: float | None = None


def read_report(workdir: pathlib.Path, set_name: str = "") -> dict[str, Any]:
    """The report of a finished set.

    Raises:
      UserError: there is none, or it is of another set than the one that lies there now.
    """
    home = workdir / "sets" / set_name if set_name else workdir
    path = home / "report.json"
    if not path.exists():
        raise UserError(f"{path} is missing: the run is not finished; give its command again")
    report = json.loads(path.read_text(encoding="utf-8"))
    record = home / "set.json"
    identity = json.loads(record.read_text(encoding="utf-8"))["identity"] if record.exists() else {}
    if config.identity_hash(identity) != report["config_hash"]:
        raise UserError(
            f"{path} is of another set than the one that is there now ({record}): the run is not "
            "finished; give its command again"
        )
    return report


def collect(
    report: Mapping[str, Any], said: Said, *, num_iterations: int, keep_full: bool = False
) -> tuple[list[measured.Number], list[measured.ClassAccuracy]]:
    """The rows of a report for both files.

    Args:
      report: content of report.json.
      said: what it does not know.
      num_iterations: outer iterations that made the set.
      keep_full: also a whole training set that was hardly trained on.
    """
    numbers, by_class = [], []
    for name, result in {**report["results"], **_teachers(report)}.items():
        if name == "full_real" and result["num_epochs"] < _MIN_FULL_EPOCHS and not keep_full:
            continue
        number = _number(report, said, name, result, num_iterations)
        numbers.append(number)
        # Of several teachers by what they say together: accuracies by class know no variants.
        is_told = number.row != "teacher" or name in _TELLS
        if number.row in _BY_CLASS and is_told and not number.network and "per_class" in result:
            shared = {field: getattr(number, field) for field in
                      ("run", "row", "block", "study", "ipc", "iterations")}  # fmt: skip
            by_class += [
                measured.ClassAccuracy(
                    **shared, name=label, training_images=count, accuracy=float(accuracy)
                )
                for label, count, accuracy in zip(
                    report["class_names"], report["train_counts"], result["per_class"], strict=True
                )
            ]
    return numbers, by_class


def _teachers(report):
    """The teachers as rows, where students learned from them, with their bytes as far as known.

    Of several there is also the mean of their logits, which is what the students were told.
    """
    taught = [r for n, r in report["results"].items() if n.startswith(_SECOND)]
    teachers = {n: t for n, t in report.get("teachers", {}).items() if n.startswith("teacher")}
    if not taught:
        return {}
    more = {"block": "ii", "labels": "H", "rate": None}
    stored = max(r["stored_bytes"]["teacher"] for r in taught)
    if len(teachers) > 1:
        told = taught[0]["teacher"]
        epochs = max(teacher["num_epochs"] for teacher in teachers.values())
        mean = {"std": 0.0, "per_seed": [told["mean"]], "num_epochs": epochs, **told}
        rows = {f"teacher_{_MEAN}": {**mean, **more, "stored_bytes": {"": stored}}}
    else:
        rows = {}
    # A report does not say how large each of them is: those of one kind are alike.
    is_one_kind = len(set(report["config"]["teacher"]["nets"])) == 1
    share = {"": stored // max(len(teachers), 1) if is_one_kind else 0}
    return rows | {n: {**teacher, **more, "stored_bytes": share} for n, teacher in teachers.items()}


def _say_member(kind, count):
    """What sets one of several teachers apart."""
    member = kind.partition("_")[2]
    if not member:
        return ""
    return f"mean of {count} networks" if member == _MEAN else f"network {member}"


def _number(report, said, name, result, num_iterations):
    settings = report["config"]
    kind, _, network = name.removeprefix(_SECOND).partition(_OTHER)
    is_point = kind.startswith(_CURVE)
    is_teacher = kind.startswith("teacher")
    row = "iteration" if is_point else "teacher" if is_teacher else kind
    iterations = {"initial": 0, "initial_at_baseline_rate": 0}.get(row, num_iterations)
    iterations = int(kind.removeprefix(_CURVE)) if is_point else iterations
    method = _METHODS.get(row, "teacher" if is_teacher else settings["distill"]["method"])
    is_shared, is_made = row in _SHARED, row in ("distilled", "iteration")
    study = said.study or ("curve" if is_point else "networks" if network else "")
    found = _find_published(report, method, row, result["block"], network)
    random = report["results"].get(f"{_SECOND if result['block'] == 'ii' else ''}random_real")
    over = result.get("ior", result["mean"] - random["mean"] if random else None)
    seconds = report["seconds"]
    seeds, note = len(result["per_seed"]), said.note
    variant = "" if is_shared and not (said.study and result["block"] == "ii") else said.variant
    if is_teacher:
        count = sum(name.startswith("teacher") for name in report["teachers"])
        variant = ", ".join(filter(None, (variant, _say_member(kind, count))))
        note = note or _TELLS.get(kind, "one of the networks that label for these students")
    return measured.Number(
        data=settings["data"]["source"],
        imbalance_factor=_find_factor(report),
        ipc=int(settings["distill"]["ipc"]),
        width=int(settings["net"]["width"]),
        block=result["block"],
        labels=result["labels"],
        method=method,
        mean=float(result["mean"]),
        std=float(result["std"]),
        seeds=seeds,
        experts=None if is_shared else _count_experts(report),
        iterations=None if is_shared else iterations,
        stored_bytes=sum(result["stored_bytes"].values()) or None,
        published=found and found.mean,
        command=" ".join(said.command.split()),
        commit=said.commit,
        row=row,
        run=said.run if is_shared or not said.set_name else f"{said.run}/{said.set_name}",
        study=study,
        variant=variant,
        network=network.replace("_adam", ", Adam"),
        views=settings["labels"]["views"] if result["labels"] == "SE" else None,
        epochs=result["num_epochs"],
        rate=result["rate"],
        over_random=over if is_made and not network else None,
        **{group: result.get(group) for group in ("many", "medium", "few")},
        wall_seconds=seconds.get("distill") if row == "distilled" and not network else None,
        expert_seconds=_find_expert_seconds(report, said) if row == "distilled" else None,
        flops=said.flops if row == "distilled" else None,
        pixels=said.pixels,
        machine=said.machine,
        date=said.date,
        published_std=found and found.std,
        published_source=found.source.partition(",")[0] if found else "",
        note=" ".join(note.split()),
        judge=settings["data"].get("judge", "test"),
    )


def _find_published(report, method, row, block, network):
    """The printed number for the same cell; of random images and of what a method made."""
    settings = report["config"]
    data, count = settings["data"], len(report["train_counts"])
    is_printed = row in ("random_real", "distilled") and method in PRESETS
    if not is_printed or (data["subset"], data.get("judge", "test")) != ("long_tail", "test"):
        return None
    if not collecting.belongs(method, block):
        return None
    # Published networks are called without the normalisation of ours.
    student = network.removesuffix("_bn") or settings["net"]["name"]
    ipc = settings["distill"]["ipc"]
    factor = data["imbalance_factor"]
    return literature.find(data["source"], factor, ipc, method, student, num_classes=count)


def _find_factor(report):
    data, counts = report["config"]["data"], report["train_counts"]
    if data["subset"] == "long_tail":
        return float(data["imbalance_factor"])
    return round(max(counts) / min(counts), 1)


def _count_experts(report):
    return int(report["config"]["experts"]["num_experts"]) if report["experts"] else 0


def _find_expert_seconds(report, said):
    if said.expert_seconds is not None:
        return said.expert_seconds
    spent = report["seconds"].get("experts", 0.0)
    return spent if spent > 1 else None  # less: they were there already


def count_iterations(workdir: pathlib.Path, set_name: str, settings: Mapping[str, Any]) -> int:
    """Outer iterations of a set: what its section says, or the last in its log of metrics."""
    preset = PRESETS.get(settings["distill"]["method"])  # a method of one's own may be none
    fields = records.flatten(settings.get(preset.section, {}) if preset else {}).items()
    given = sum(value for name, value in fields if name.endswith("num_iterations"))
    log = (workdir / "sets" / set_name if set_name else workdir) / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    steps = [entry["step"] for entry in map(json.loads, lines) if entry.get("stage") == "distill"]
    return given or max(steps, default=0)


def find_commit() -> str:
    """Of the checkout.

    Raises:
      UserError: the program was changed since.
    """
    run = ["git", "-C", str(ROOT)]
    changed = [*run, "status", "--porcelain", "--untracked-files=no", "ltdd_jax", "configs"]
    if subprocess.run(changed, capture_output=True, text=True, check=True).stdout.strip():
        raise UserError("ltdd_jax or configs have uncommitted changes: give --commit=HASH")
    shown = [*run, "rev-parse", "--short=7", "HEAD"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()


def describe_machine() -> str:
    """'2 cores of AMD EPYC'."""
    name = platform.processor()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next(
            (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), name
        )
    count = backend.count_cores()
    return f"{count} core{'s' * (count != 1)} of {name or platform.machine()}"


def _make_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    say = parser.add_argument
    say("--workdir", required=True, type=pathlib.Path)
    say("--set", default="", help="name of the set; without it, the one at the root")
    say("--command", required=True, help="that makes the run, with DIR for your directories")
    say("--run", default="", help="name of the directory in the file; its own without")
    say("--commit", default="", help="of the program that made it; that of the checkout without")
    say("--pixels", default="", choices=("original", "jpeg"), help="needed for photographs")
    say("--study", default="", help="comparison that the rows belong to")
    say("--variant", default="", help="what sets the run apart, in words")
    say("--note", default="", help="what readers have to know")
    say("--machine", default=describe_machine())
    say("--flops", type=float, help="of the making of the set, experts included")
    say("--wall_seconds", type=float, help="of the making of the set, in place of the run's own")
    say("--expert_seconds", type=float, help="of experts and teachers, if another run had them")
    say("--rows", default="", help="only rows of these kinds, such as full_real; all without")
    say("--full", action="store_true", help="also a whole training set of few epochs")
    say("--replace", action="store_true", help="numbers that are there give way")
    say("--unchecked", action="store_true", help="the command is not compared with the run")
    say("--results", type=pathlib.Path, default=measured.FOLDER, help=argparse.SUPPRESS)
    return parser


def collect_run(args: argparse.Namespace) -> str:
    """Takes a run into the files of `args.results`; returns what was done, in a sentence.

    Raises:
      UserError: the run, the command or the numbers are refused; nothing is written.
    """
    report = read_report(args.workdir, args.set)
    settings = report["config"]
    if not args.unchecked:
        check_command(args.command, settings, args.set)
    if settings["data"]["source"] in _PHOTOS and not args.pixels:
        raise UserError("say whether the pixels are the originals: --pixels=original or jpeg")
    if args.wall_seconds is not None:
        report["seconds"]["distill"] = args.wall_seconds
    home = args.workdir / "sets" / args.set if args.set else args.workdir
    said = Said(
        command=args.command,
        commit=args.commit or find_commit(),
        run=args.run or args.workdir.resolve().name,
        set_name=args.set,
        pixels=args.pixels or "original",
        machine=args.machine,
        date=f"{datetime.date.fromtimestamp((home / 'report.json').stat().st_mtime)}",
        study=args.study,
        variant=args.variant,
        note=args.note,
        flops=args.flops,
        expert_seconds=args.expert_seconds,
    )
    iterations = count_iterations(args.workdir, args.set, settings)
    numbers, by_class = collect(report, said, num_iterations=iterations, keep_full=args.full)
    if args.rows:
        numbers, by_class = _keep_kinds(args.rows.split(","), numbers, by_class)
    results, classes = (args.results / path.name for path in (measured.RESULTS, measured.PER_CLASS))
    old = measured.read(results)
    rows = measured.add(old, numbers, replace=args.replace)
    measured.check(rows)
    kept = {accuracy.of for accuracy in by_class}
    before = measured.read(classes, measured.ClassAccuracy)
    by_class = [x for x in before if x.of not in kept] + by_class
    by_class.sort(key=lambda x: tuple(map(str, x.of)))  # classes keep their order
    results.write_text(measured.render(rows), encoding="utf-8")
    classes.write_text(measured.render(by_class, measured.ClassAccuracy), encoding="utf-8")
    return f"{said.run} {said.set_name}: {len(rows) - len(old)} rows are new, {len(numbers)} read"


def _keep_kinds(kinds, numbers, by_class):
    """The rows of some kinds: others of the run may stand there already, from another machine."""
    for kind in kinds:
        if kind not in {number.row for number in numbers}:
            raise UserError(f"--rows: the run has no row {kind!r} for the file")
    return [row for row in numbers if row.row in kinds], [x for x in by_class if x.row in kinds]


def main(argv: list[str]) -> int:
    """Exit code: 0, or 2 after one sentence on what is wrong."""
    try:
        print(collect_run(_make_parser().parse_args(argv)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
