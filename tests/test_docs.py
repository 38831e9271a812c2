"""What the pages in docs/ say works as it stands there."""

import inspect
import pathlib
import re
import subprocess
import sys

import pytest

from ltdd_jax import command_line, families, fields, presets, validation
from ltdd_jax import config as configs
from ltdd_jax.types import UserError
from tests.distill import tasks, test_method

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "add_a_method.md").read_text(encoding="utf-8")
METHOD, CONFIG = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The module of the page is imported; the registries are as before afterwards."""
    tables = (families.BUILDERS, presets.PRESETS, fields.FIELDS, validation.CHECKS)
    before = [dict(table) for table in tables]
    method_before = fields.FIELDS["distill"]["method"]
    (tmp_path / "characteristic_matching.py").write_text(METHOD, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import characteristic_matching

    yield characteristic_matching
    del sys.modules["characteristic_matching"]
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)
    fields.FIELDS["distill"]["method"] = method_before
    test_method.make_case.cache_clear()


def test_a_method_takes_fewer_than_sixty_lines():
    assert len([line for line in METHOD.splitlines() if line.strip()]) < 60


def test_the_method_of_the_page_keeps_the_contract(registered, monkeypatch):
    """Every test of the contract; breaks when the page shows a method that cannot be resumed."""
    small = {"characteristic_matching.num_iterations": 4, "characteristic_matching.batch_size": 5}
    monkeypatch.setattr(tasks, "TINY", tasks.TINY | small)
    assert "cfm" in configs.METHODS
    case = test_method.make_case("cfm")
    ran = 0
    for name, function in vars(test_method).items():
        if name.startswith("test_") and list(inspect.signature(function).parameters) == ["case"]:
            function(case)
            ran += 1
    assert ran > 8
    test_method.test_impossible_settings_are_refused_with_one_sentence("cfm")


def test_the_config_of_the_page_is_valid(registered):
    names = {}
    exec(CONFIG, names)
    config = names["get_config"]()
    configs.validate(config)
    assert config.distill.method == "cfm"
    config.characteristic_matching.batch_size = 0
    with pytest.raises(UserError, match=r"characteristic_matching\.batch_size=0"):
        configs.validate(config)


def test_fields_of_the_page_can_be_set_on_the_command_line(registered, tmp_path):
    """Breaks when a registered section is refused because the file has not been read yet."""
    path = tmp_path / "digits_cfm.py"
    path.write_text(CONFIG, encoding="utf-8")
    set_field = "--config.characteristic_matching.batch_size=64"
    command_line.check_overrides([f"--config={path}", set_field])
    with pytest.raises(UserError, match="is not a field"):
        command_line.check_overrides([f"--config={path}", f"{set_field[:-4]}s=64"])


def test_a_name_is_registered_once(registered):
    preset = presets.Preset("other", "", "", {})
    for section, methods in (
        ("selection", {}),
        ("other", {"cfm": preset}),
        ("more", {"x": preset}),
    ):
        with pytest.raises(ValueError, match=r"registered already|not of section"):
            families.register(section, builder="a:b", settings={}, methods=methods)


def test_configs_are_read_without_the_methods():
    """Breaks when the registry imports a builder, and with it networks and optimisers."""
    code = "import sys, ltdd_jax.families as f; f.validation; sys.exit('optax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
