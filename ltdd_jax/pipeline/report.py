"""The report of a run: what the stages left is gathered and handed to `ltdd_jax.report`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from ltdd_jax import config as configs
from ltdd_jax import families
from ltdd_jax.distill import Method
from ltdd_jax.experts.trajectory import DamagedSegmentError
from ltdd_jax.pipeline import artefacts, claims, labels, work
from ltdd_jax.pipeline.experts import open_trajectories
from ltdd_jax.pipeline.run import Run
from ltdd_jax.pipeline.workspace import versions
from ltdd_jax.presets import PRESETS
from ltdd_jax.report import page, text
from ltdd_jax.runtime import files, processes

# What a set was made by stays its own, even where the run has other experts or teachers by now.
_MADE_BY = ("experts", "teacher", "observer", "distill", *families.BUILDERS)


def write_report(
    run: Run,
    method: Method,
    results: Mapping[str, Mapping[str, Any]],
    confusion: Sequence[Sequence[int]] | None,
    experts: Mapping[str, Mapping[str, Any]],
    teachers: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
    described: str,
) -> None:
    """Writes report.json, report.md and report.html; prints the second and where the third lies.

    Args:
      run: whose set was evaluated.
      method: of the set.
      results: summary of each row.
      confusion: counts [K, K] of the distilled set; None if they were not kept.
      experts: summary of each kind of experts that were looked at.
      teachers: summary of each teacher and observer that was looked at.
      seconds: stage -> wall time.
      described: the plan.
    """
    record = claims.read_set_record(run.workspace) or {"identity": {}, "config": {}}
    asked = {*record["identity"], *record["identity"].get("teachers", ())}
    of_set = {name: record["config"][name] for name in _MADE_BY if name in asked}
    made = text.make_report(
        results,
        config=run.config.to_dict() | of_set,
        config_hash=configs.identity_hash(record["identity"]),
        data_fingerprint=run.problem.fingerprint,
        class_names=run.problem.train.class_names,
        train_counts=run.problem.class_counts,
        versions=versions(),
        seconds=seconds,
        experts=experts,
        teachers=teachers,
        held_out=len(run.problem.test.labels) if run.problem.judge == "held_out" else 0,
    )
    files.write_text(run.workspace.report, text.render_json(made))
    table = text.render_markdown(made)
    files.write_text(run.workspace.report_text, table)
    processes.say(table)
    if not processes.is_first():
        return
    final = artefacts.read_set(run, artefacts.FINAL)
    preset = PRESETS[made["config"]["distill"]["method"]]
    material = page.Material(
        pictures=read_pictures(run, final, preset.section == "selection"),
        confusion=confusion,
        expert_losses=_read_expert_losses(run, experts),
        distill_losses=_read_distill_losses(run),
        reference=preset.reference,
        plan=described,
        flops=work.count_flops(run, method),
        workdir=str(run.workspace.root),
        set_name=run.workspace.set_name,
        labels_file=_name_labels(run, final),
    )
    files.write_text(run.workspace.report_page, page.render_page(made, material))
    processes.say(f"report to look at: {run.workspace.report_page}")


def read_pictures(run: Run, final: artefacts.LabelledSet, is_selection: bool) -> page.Pictures:
    """The final set with the labels that were evaluated, and the images it started from.

    Args:
      run: whose set and labels are there.
      final: set of the run.
      is_selection: of real images, which are what the set started from.

    Raises:
      UserError: the set or its labels are missing, damaged or of other data.
    """
    pixels = artefacts.read_pixels(run, artefacts.FINAL)
    assert pixels is not None  # or the set could not have been read
    evaluated, _ = labels.read_labels(run, final)
    shares = special.softmax(np.asarray(evaluated.synthetic.label_logits), axis=1)
    # Labels that were made later are those of the pictures in the images, all first ones first.
    shares = shares.reshape(-1, len(final.labels), shares.shape[1]).mean(axis=0)
    return page.Pictures(
        pixels=pixels,
        labels=final.labels,
        probabilities=shares,
        initial=None if is_selection else artefacts.read_pixels(run, artefacts.INITIAL),
        partition=final.partition,
    )


def _name_labels(run, final):
    """The file of the labels that were evaluated; "" where the method gave them."""
    path = labels.find_file(run, final)
    return path.name if path else ""


def _read_expert_losses(run, kinds):
    """Losses of the trajectories that are still there; they may be deleted when a set is made."""
    found = {}
    for kind in kinds:
        try:
            losses = open_trajectories(run, kind).losses(run.config.experts.num_experts)
        except DamagedSegmentError:
            continue  # said when they are used
        if np.isfinite(losses).all():
            found[kind] = losses
    return found


def _read_distill_losses(run):
    """name -> (iterations, values) of every loss in metrics.jsonl."""
    entries = run.workspace.metrics.read("distill")
    names = [name for name in (entries[0] if entries else {}) if name.endswith("loss")]
    names.sort(key=lambda name: (name != "loss", name))  # the sum comes first
    steps = [entry["step"] for entry in entries]
    return {name: (steps, [entry[name] for entry in entries]) for name in names}
