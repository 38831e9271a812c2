"""Two processes on loopback: break when they wait for each other, or give another result than one.

python -m pytest tests/pipeline/test_processes.py -m "slow or not slow"
"""

import contextlib
import socket
import time

import numpy as np
import pytest

from tests.pipeline import runs


def start_two(stack, program, workdir, *more):
    """Both processes, ended with the stack."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = ["--distributed", f"--coordinator_address=127.0.0.1:{port}", "--num_processes=2"]
    return [
        stack.enter_context(
            runs.ended(program.start(workdir, *common, f"--process_id={number}", *more))
        )
        for number in range(2)
    ]


def finish(process, code=0):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output


@pytest.mark.slow
def test_two_processes_give_the_result_of_one_and_only_the_first_speaks(
    program, finished, tmp_path
):
    with contextlib.ExitStack() as stack:
        first, second = start_two(stack, program, tmp_path / "run")
        assert "distilled set" in finish(first)
        output = finish(second)
    spoken = [line for line in output.splitlines() if not line.startswith("[Gloo]")]
    assert not [line for line in spoken if "experts" in line or "distil" in line], output
    runs.assert_same(tmp_path / "run", finished)


@pytest.mark.slow
@pytest.mark.parametrize("experts_by", [1, 2])
def test_trajectories_of_one_are_read_by_two_and_the_other_way_round(
    program, finished, tmp_path, experts_by
):
    """Breaks when what is on disk depends on the processes that wrote it."""
    workdir = tmp_path / "run"
    for number, stage in ((experts_by, "experts"), (3 - experts_by, "all")):
        if number == 1:
            program.run(workdir, f"--stage={stage}")
            continue
        with contextlib.ExitStack() as stack:
            for process in start_two(stack, program, workdir, f"--stage={stage}"):
                finish(process)
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_expert_pairs_are_divided_among_processes(program, tmp_path):
    """Breaks when a process takes another's pair: four pairs, two of them on each process."""
    fields = ["--config.trajectory.pairs_per_iteration=4", "--config.trajectory.num_iterations=3"]
    program.run(tmp_path / "one", *fields)
    with contextlib.ExitStack() as stack:
        for process in start_two(stack, program, tmp_path / "two", *fields):
            finish(process)
    one, two = (runs.artefacts(tmp_path / name) for name in ("one", "two"))
    for name in ("images", "label_logits", "step_size"):
        a, b = (np.frombuffer(run[f"synthetic.{name}"][2], np.float32) for run in (one, two))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1], ids=["first", "second"])
def test_killing_one_ends_the_other_and_one_process_continues(program, finished, tmp_path, killed):
    workdir = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        both = start_two(stack, program, workdir)
        assert runs.wait_until(lambda: any(workdir.glob("experts/*/group_*/epochs_*")), both[0])
        both[killed].kill()
        start = time.monotonic()
        output, _ = both[1 - killed].communicate(timeout=60)
        assert time.monotonic() - start < 60
        assert both[1 - killed].returncode != 0
    assert "another process of this run has ended" in output or "another task died" in output
    program.run(workdir)
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_signal_to_one_stops_both_and_both_continue(program, finished, tmp_path):
    workdir = tmp_path / "run"
    with contextlib.ExitStack() as stack:
        both = start_two(stack, program, workdir)
        assert runs.wait_until(lambda: any(workdir.glob("distill/step_*")), both[0])
        both[1].terminate()
        outputs = [finish(process, 143) for process in both]
    assert all("stopped by SIGTERM" in output for output in outputs)
    with contextlib.ExitStack() as stack:
        for process in start_two(stack, program, workdir):
            finish(process)
    runs.assert_same(workdir, finished)


@pytest.mark.slow
def test_mistake_ends_both(program, copy):
    workdir = copy()
    with contextlib.ExitStack() as stack:
        first, second = start_two(stack, program, workdir, "--config.seed=1")
        assert "is of another seed or other data" in finish(first, 2)
        output, _ = second.communicate(timeout=60)
        assert second.returncode != 0
    assert "another process of this run has ended" in output or "another task died" in output


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--num_processes=2"], "need --distributed"),
        (["--distributed", "--num_processes=2"], "belong together"),
        (
            ["--distributed", "--coordinator_address=127.0.0.1:1", "--num_processes=2",
             "--process_id=2"],
            "--process_id=2 must be from 0 to --num_processes - 1 = 1",
        ),
        (["--distributed"], "--distributed cannot connect the processes"),
    ],
)  # fmt: skip
def test_mistakes_in_the_flags(program, tmp_path, flags, expected):
    output = program.run(tmp_path / "run", *flags, expect=2)
    assert expected in output
    assert not (tmp_path / "run").exists()
