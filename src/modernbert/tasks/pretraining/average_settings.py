"""What a user says of an average: which states it is made of, and on what they are evaluated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class AverageSettings(Settings):
    """The options of `average`.

    Raises:
        SettingsError: A value is out of its range, or has no effect without another.
    """

    last: Annotated[int | None, Ge(1), Doc("Average only the last N states.")] = None
    best: Annotated[
        int | None, Ge(1), Doc("Average only the N states with the lowest held-out loss.")
    ] = None
    weight: Annotated[
        tuple[float, ...],
        Doc("The weight of each model, in the order given.", default="equal weights"),
    ] = ()
    held_out: Annotated[
        Path | None, Doc("Shards on which to evaluate each state and the average.")
    ] = None
    max_tokens: Annotated[
        int | None, Ge(1), Doc("Evaluate on a random sample of this many tokens.")
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_tokens is not None and self.held_out is None:
            raise SettingsError("max_tokens: has no effect without --held-out")
