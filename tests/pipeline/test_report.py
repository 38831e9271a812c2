"""Breaks when report.html shows anything but what the stages left."""

import base64
import contextlib
import html
import io
import json
import re
import shutil

import numpy as np
from PIL import Image
from scipy import special

import ltdd_jax
from ltdd_jax.pipeline import artefacts, labels, report
from ltdd_jax.runtime import files
from tests.pipeline import small_run


def read_page(home):
    return (home / "report.html").read_text(encoding="utf-8")


def test_page_shows_the_set_beside_the_images_it_started_from(finished):
    page = read_page(finished)
    with np.load(finished / "synthetic" / "synthetic.npz") as archive:
        pixels, logits, labels = (archive[x] for x in ("pixels", "label_logits", "labels"))
    with np.load(finished / "synthetic" / "initial.npz") as archive:
        initial = archive["pixels"]
    order = np.argsort(labels, kind="stable")  # digits fall from the first class to the last
    found = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r'<img src="data:image/png;base64,([^"]*)"', page)
    ]
    np.testing.assert_array_equal(found[0::2], initial[order, ..., 0])
    np.testing.assert_array_equal(found[1::2], pixels[order, ..., 0])
    shares = 100 * special.softmax(logits, axis=1)
    first = re.findall(r'<ol><li[^>]*><span class="name" title="(\d)">.*?width:(\d+)%', page)
    assert first == [(f"{np.argmax(s)}", f"{np.max(s):.0f}") for s in shares[order]]


def test_page_shows_the_labels_that_were_evaluated(copy, run):
    """Breaks when the bars, or the code without this package, are those of the method's labels."""
    workdir = copy(without=("evaluate",))
    for stage in ("distill", "evaluate"):
        run(workdir, stage, labels__relabel="experts")
    page, found = read_page(workdir), ltdd_jax.load_dataset(workdir)
    with np.load(workdir / "synthetic" / "synthetic.npz") as archive:
        assert np.abs(archive["label_logits"] - found.label_logits).max() > 0.1
    shares = 100 * found.label_probabilities[np.argsort(found.labels, kind="stable")]
    first = re.findall(r'<ol><li[^>]*><span class="name" title="(\d)">.*?width:(\d+)%', page)
    assert first == [(f"{np.argmax(s)}", f"{np.max(s):.0f}") for s in shares]
    (name,) = (path.name for path in (workdir / "synthetic").glob("labels-*.npz"))
    assert f'<th scope="row">synthetic/{name}</th>' in page
    code = html.unescape(re.findall(r"<code>(import numpy.*?)</code>", page, re.DOTALL)[0])
    variables = {}
    with contextlib.chdir(workdir):
        exec(code, variables)
    np.testing.assert_array_equal(variables["images"], found.images)
    np.testing.assert_array_equal(variables["label_logits"], found.label_logits)


def test_label_of_an_image_of_several_pictures_is_the_mean_of_theirs(tmp_path):
    """Breaks when a picture's own label stands beside another image, or rows and labels differ."""
    run = small_run.make_run(tmp_path, labels__calibration="adsa")
    small_run.write_sets(run, partition=2)
    stored = artefacts.read_set(run, artefacts.FINAL)
    own = np.random.default_rng(0).normal(0, 2, (4, len(stored.labels), 3)).astype(np.float32)
    path = labels.find_file(run, stored)
    np.savez(path, label_logits=own.reshape(-1, 3))
    found = report.read_pictures(run, stored, is_selection=False)
    assert found.partition == 2
    np.testing.assert_array_equal(found.labels, stored.labels)
    np.testing.assert_allclose(
        found.probabilities, special.softmax(own, axis=2).mean(axis=0), rtol=1e-5
    )


def test_page_has_losses_experts_confusions_and_plan(finished):
    page = read_page(finished)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["stage"] == "representation"]
    assert f"representation experts from {losses[0]:.2f} to {losses[-1]:.2f} in 5 epochs" in page
    losses = [line["loss"] for line in lines if line["stage"] == "distill"]
    assert f"loss from {losses[0]:.3g} to {losses[-1]:.3g}" in page
    sections = re.findall(r'<section id="(\w+)">', page)
    assert {"confusion", "experts", "distillation"} <= set(sections)
    assert "  evaluate: 2 networks x 6 epochs" in page  # the plan as it was printed
    assert f"load_dataset(&#x27;{finished}&#x27;)" in page


def test_confusions_are_kept_with_the_result_of_the_set_alone(finished):
    kept = {}
    for path in [*finished.glob("evaluate/*.json"), *finished.glob("baselines/*.json")]:
        found = json.loads(path.read_text())
        if "confusion" in found:
            kept[path.name.partition("-")[0]] = found
    assert list(kept) == ["distilled"]
    confusion = np.array(kept["distilled"]["confusion"])
    assert confusion.shape == (10, 10)
    accuracies = np.mean(kept["distilled"]["per_seed_per_class"], axis=0)
    np.testing.assert_allclose(100 * np.diag(confusion) / confusion.sum(axis=1), accuracies)
    assert "confusion" not in (finished / "report.json").read_text()


def test_results_and_experts_of_the_past_need_nothing_new(copy, run, capfd):
    """A result without confusions is used as it is, and so is a set whose experts were deleted."""
    workdir = copy()
    (path,) = workdir.glob("evaluate/distilled-*.json")
    found = json.loads(path.read_text())
    del found["confusion"], found["checksum"]
    files.write_sealed(path, found)
    before = path.read_bytes()
    shutil.rmtree(workdir / "experts")
    shutil.rmtree(workdir / "accuracy")
    capfd.readouterr()
    run(workdir, "evaluate")
    output = capfd.readouterr()
    assert "epoch/s" not in output.err and path.read_bytes() == before
    assert f"report to look at: {workdir}/report.html" in output.out
    sections = re.findall(r'<section id="(\w+)">', read_page(workdir))
    assert "images" in sections and "distillation" in sections
    assert "confusion" not in sections and "experts" not in sections
