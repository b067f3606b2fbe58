"""`MiningSettings`: which documents count as hard negatives."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Interval

from modernbert.errors import SettingsError
from modernbert.settings import Doc, Settings


@dataclass(frozen=True, kw_only=True)
class MiningSettings(Settings):
    """Which documents count as hard negatives.

    Raises:
        SettingsError: A value is out of its range.
    """

    negatives: Annotated[int, Ge(1), Doc("The most negatives for each query.")] = 4
    skip: Annotated[int, Ge(0), Doc("Leave out this many of the nearest documents.")] = 0
    depth: Annotated[int, Doc("Consider this many of the nearest documents.")] = 100
    margin: Annotated[
        float, Ge(0), Doc("How far a negative's score must be below the answer's.")
    ] = 0.0
    ratio: Annotated[
        float | None,
        Interval(gt=0, le=1),
        Doc("The highest score of a negative, relative to the answer's, such as 0.95."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth <= self.skip:
            raise SettingsError(
                f"depth: got {self.depth}, expected more than skip, which is {self.skip}"
            )
