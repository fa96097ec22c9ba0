"""Programs that share imports share nothing else, and end as they do by themselves."""

import pytest

from warm_python import WarmPython


@pytest.fixture
def python():
    warm = WarmPython(["fractions"], ["-W", "error"], SHARED="yes")
    yield warm
    warm.close()


def program(folder, text, *arguments, python):
    script = folder / "program.py"
    script.write_text(text)
    return python.run(script, *arguments, folder=folder, OWN="too")


def test_a_program_sees_what_it_sees_by_itself(python, tmp_path):
    text = """
import os, sys
import beside
class Own: ...
print(__name__, sys.argv[1:], os.path.basename(__file__), os.getcwd() == sys.path[0])
print(os.environ["SHARED"], os.environ["OWN"], sys.modules["__main__"].Own is Own, beside.value)
print("fractions" in sys.modules, sys.stdin.read() == "", file=sys.stderr)
"""
    (tmp_path / "beside.py").write_text("value = 3")
    code, printed = program(tmp_path, text, "--one", "2", python=python)
    assert code == 0, printed
    for line in ("__main__ ['--one', '2'] program.py True", "yes too True 3", "True True"):
        assert line in printed


def test_programs_see_nothing_of_each_other(python, tmp_path):
    text = "import fractions; print(hasattr(fractions, 'left')); fractions.left = 1"
    for _ in range(2):
        assert program(tmp_path, text, python=python) == (0, "False\n")


@pytest.mark.parametrize(
    ("text", "code", "printed"),
    [
        ("raise ValueError('told')", 1, "ValueError: told"),
        ("import sys; sys.exit(3)", 3, ""),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, ""),
        ("import warnings; warnings.warn('x')", 1, "UserWarning: x"),
        ("import atexit; atexit.register(print, 'at last')", 0, "at last"),
        ("import threading; threading.Timer(0.1, print, ['later']).start()", 0, "later"),
    ],
)
def test_it_ends_as_by_itself(python, tmp_path, text, code, printed):
    found, output = program(tmp_path, text, python=python)
    assert found == code
    assert printed in output
    assert program(tmp_path, "print('next')", python=python).output == "next\n"
