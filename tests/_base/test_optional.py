"""Optional packages are named with the command that installs them."""

import sys

import pytest

from boltax._base._optional import import_optional
from boltax.errors import MissingExtraError


def test_a_missing_package_names_its_extra():
    with pytest.raises(
        MissingExtraError,
        match=r'the W&B logger needs the package \'no_such\'.*pip install "boltax\[wandb\]"',
    ):
        import_optional("no_such.part", extra="wandb", purpose="the W&B logger")


def test_what_a_present_package_lacks_is_reported_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("import its_missing_part\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_part"):
        import_optional("halfway", extra="x", purpose="this")
    assert "halfway" not in sys.modules
