"""`ComputationSettings`: how the processes of a run compute."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from modernbert.settings import Doc, Settings

DEFAULT_TIMEOUT_SECONDS = 600.0

Sharding = Literal["none", "full"]


@dataclass(frozen=True, kw_only=True)
class ComputationSettings(Settings):
    """How the processes of a run compute; a run may be continued under others.

    recompute: Keep no activations inside a layer, but do its forward again in the backward.
    compile: Compile the layers with torch.compile.
    timeout_seconds: After so long a process that does not come is given up, and named.
    """

    sharding: Annotated[
        Sharding,
        Doc("full keeps weights and optimizer state in shards over all processes (FSDP2)."),
    ] = "none"
    recompute: bool = False
    compile: bool = False
    timeout_seconds: Annotated[float, Gt(0)] = DEFAULT_TIMEOUT_SECONDS
