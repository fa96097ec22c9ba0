"""Tests of `boltax._process._user_cache`."""

from pathlib import Path

import pytest

from boltax._process._user_cache import user_cache


@pytest.mark.parametrize(
    "platform, variables, folder",
    [
        ("linux", {"XDG_CACHE_HOME": "{home}/xdg"}, "xdg/boltax/weights"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, ".cache/boltax/weights"),
        ("linux", {}, ".cache/boltax/weights"),
        ("darwin", {}, "Library/Caches/boltax/weights"),
        ("win32", {"LOCALAPPDATA": "{home}/local"}, "local/boltax/weights"),
    ],
)
def test_caches_lie_where_the_system_has_them(platform, variables, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(home=tmp_path))
    assert user_cache("weights") == Path(tmp_path, folder)
