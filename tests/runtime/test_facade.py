"""`from ltbm.runtime import Session`: the public names, loaded when they are used."""

import subprocess
import sys

import pytest

import ltbm.runtime


@pytest.mark.parametrize("name", ltbm.runtime.__all__)
def test_every_public_name_can_be_imported(name):
    value = getattr(ltbm.runtime, name)
    assert value.__name__ == name and value.__module__.startswith("ltbm.runtime.")


def test_the_list_of_names_is_the_list_of_modules():
    assert sorted(ltbm.runtime._MODULES) == ltbm.runtime.__all__ == dir(ltbm.runtime)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Sessions'"):
        ltbm.runtime.Sessions  # noqa: B018


def test_importing_the_package_loads_nothing():
    code = (
        "import sys, ltbm.runtime; print([n for n in sys.modules if n.startswith(('ltbm.runtime.', "
        "'numpy'))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
