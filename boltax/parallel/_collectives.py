"""What a compiled program has its devices send to each other."""

import re
from collections import Counter

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_CALL = re.compile(rf"[\]}})] ({'|'.join(KINDS)})(?:-start)?\(")


def collectives_in(program: str) -> dict[str, int]:
    """The collective operations in the text of a compiled program, by kind, in a fixed order.

    Each stands for one place in the program; within a loop it is sent in each round.

    Args:
        program: as ``compiled.as_text()`` gives it.

    Example:
        >>> collectives_in("%sum = f32[8]{0} all-reduce(%x), to_apply=%add")
        {'all-reduce': 1}
    """
    found = Counter(_CALL.findall(program))
    return {kind: found[kind] for kind in KINDS if found[kind]}


def shown(collectives: dict[str, int]) -> str:
    """Collectives for people.

    Example:
        >>> shown({"all-reduce": 2, "all-gather": 1})
        '2 all-reduce, 1 all-gather'
    """
    return ", ".join(f"{number} {kind}" for kind, number in collectives.items()) or "none"
