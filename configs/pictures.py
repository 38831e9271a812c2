"""Your own pictures, in one command.

    python -m ltdd_jax.main --config=configs/pictures.py --config.data.path=FOLDER_OR_TAR

The folder or archive holds one folder of pictures per class, alone or in train/ and test/; without
test/ a fifth of each class is held out. Sizes and numbers are chosen from the pictures and the
machine for a budget of time and printed with reasons: `pictures.py:quick`, the default, takes
about 3 minutes on two CPU cores, `:standard` about 30 and `:thorough` some hours. Whatever is given
on the command line stays as it is. The name of a method may follow, as in
`pictures.py:standard,datm`.
"""

from ml_collections import ConfigDict

from ltdd_jax.config import DEFAULT_METHOD, METHODS, base_config, parse_argument, use_preset


def get_config(argument: str = "") -> ConfigDict:
    """Returns the config; `argument` is a budget and a method, e.g. "standard,datm"."""
    budget, method, _ = parse_argument(argument, ("quick", "standard", "thorough"), METHODS)
    config = base_config()
    config.name = "_".join(["pictures", *([method] if method else [])])
    config.budget = budget
    config.data.source = "folder"
    config.data.subset = "as_is"
    use_preset(config, method or DEFAULT_METHOD)
    return config
