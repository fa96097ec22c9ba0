"""What a campaign found: one row of the scoreboard."""

from dataclasses import dataclass, field


@dataclass
class Score:
    """The outcome of a campaign.

    Attributes:
        campaign: what was done to how many runs.
        runs: how often.
        target: what the result has to be.
        result: what it is, in a few words.
        failures: each case that missed the target, with what is needed to do it again.
        details: figures beyond the result, one a line.
    """

    campaign: str
    runs: int
    target: str
    result: str = ""
    failures: list[str] = field(default_factory=list[str])
    details: list[str] = field(default_factory=list[str])
