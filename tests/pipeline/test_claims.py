"""To whom a directory belongs. Breaks when the program refuses what it has put there itself."""

import pytest

from ltdd_jax import backend, pipeline
from ltdd_jax.pipeline import claims
from ltdd_jax.pipeline.workspace import Workspace
from ltdd_jax.types import UserError
from tests.pipeline import tiny_config


@pytest.mark.parametrize("field", ["runtime.compilation_cache", "data.cache", "experts.path"])
def test_places_of_the_config_inside_a_new_directory_are_its_own(tmp_path, field):
    """Breaks when a first run ends at the directory of compiled programs that it has just made."""
    workdir, place = tmp_path / "run", tmp_path / "run" / "own" / "deeper"
    place.mkdir(parents=True)
    config = tiny_config.get_config()
    with pytest.raises(UserError, match=r"is not empty \(own is there\)"):
        claims.claim(Workspace(config, str(workdir)), "0" * 64)
    config.update_from_flattened_dict({field: str(place)})
    (workdir / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty \(thesis\.tex is there\)"):
        claims.claim(Workspace(config, str(workdir)), "0" * 64)
    (workdir / "thesis.tex").unlink()
    claims.claim(Workspace(config, str(workdir)), "0" * 64)
    assert (workdir / "config.json").exists()


def test_a_budget_is_chosen_for_the_machine_that_began(tmp_path, monkeypatch, capfd):
    """Breaks when the same command has other settings on other cores: its own set is refused."""
    config = tiny_config.get_config()
    config.budget = "quick"

    def settle(workdir, num_cores):
        monkeypatch.setattr(backend, "count_cores", lambda: num_cores)
        run = pipeline.open_run(config, str(workdir))
        return run.config.to_dict(), capfd.readouterr().out

    here, said = settle(tmp_path / "first", 2)
    assert "a quick run; chosen settings" in said
    other, _ = settle(tmp_path / "second", 64)
    assert other != here, "the cores decide nothing: choose other ones"
    monkeypatch.setattr(backend, "count_cores", lambda: 2)
    claims.claim(Workspace(config, str(tmp_path / "begun")), "0" * 64)
    moved, said = settle(tmp_path / "begun", 64)
    assert moved == here
    assert "a quick run, for 2 cores, with which this directory was begun; chosen" in said
