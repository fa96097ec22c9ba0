"""The page of all commands is that of the parsers of today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_parsers_say() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "commands_page.py"))["page"]()
    assert (ROOT / "docs" / "commands.md").read_text() == made, (
        "Write: python scripts/commands_page.py"
    )
    for option in ("`--heartbeat` `SECONDS`", "`FILE.py:FUNCTION\\|CONFIG.yaml`", "`FOLDER ...`"):
        assert f"| {option} |" in made
