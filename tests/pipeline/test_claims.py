"""To whom a directory belongs. Breaks when the program refuses what it has put there itself."""

import pytest

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
