"""`ComputationSettings`: how the processes of a run compute."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from modernbert.settings import Doc, Settings

DEFAULT_TIMEOUT_SECONDS = 600.0

Sharding = Literal["none", "full"]


@dataclass(frozen=True, kw_only=True)
class ComputationSettings(Settings):
    """How the processes of a run compute; a run may be continued with other values."""

    sharding: Annotated[
        Sharding,
        Doc("`full` keeps weights and optimizer state in shards over all processes (FSDP2)."),
    ] = "none"
    recompute: Annotated[
        bool, Doc("Save memory: recompute a layer's activations in the backward pass.")
    ] = False
    compile: Annotated[
        bool, Doc("Compile the layers with torch.compile, for GPUs; the first steps take longer.")
    ] = False
    timeout_seconds: Annotated[
        float, Gt(0), Doc("Give up on a process that does not respond for this many seconds.")
    ] = DEFAULT_TIMEOUT_SECONDS
