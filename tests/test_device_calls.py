"""Where arrays lie is answered in `boltax/parallel` alone: nobody else asks JAX for devices."""

import ast

from source_tree import ROOT

CALLS = {"device_put", "default_backend", "local_devices"}
ALLOWED = {
    # The program that is written beside an exported model knows JAX alone.
    "_export/_standalone.py": 1,
    # What a validation gave takes the place of older values, where these lie.
    "optim/_plateau.py": 2,
    # A template says where each array of a checkpoint goes.
    "checkpoint/_arrays.py": 1,
    "checkpoint/_foreign.py": 1,
    "checkpoint/_orbax.py": 1,
    # asked without a device: whether a value is an array
    "tune/_values.py": 1,
}


def test_devices_are_asked_for_in_one_package() -> None:
    found: dict[str, int] = {}
    for path in sorted((ROOT / "boltax").rglob("*.py")):
        name = path.relative_to(ROOT / "boltax").as_posix()
        if not name.startswith("parallel/") and (number := calls_in(path.read_text())):
            found[name] = number
    assert found == ALLOWED


def test_the_search_sees_calls_and_no_words() -> None:
    assert calls_in("put = jax.device_put\nif jax.default_backend() == 'cpu': pass") == 2
    assert calls_in('"""As jax.device_put(x)."""\nx = f"{1} jax.local_devices()"  # or so') == 0


def calls_in(text: str) -> int:
    """How often a source names one of the calls, strings and comments aside."""
    nodes = ast.walk(ast.parse(text))
    return sum(isinstance(node, ast.Attribute) and node.attr in CALLS for node in nodes)
