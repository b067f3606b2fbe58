"""`HeldMemory`: how many bytes of bodies and answers a server holds for all clients together."""

from types import TracebackType
from typing import Any, Self

from modernbert.serving.refusal import overloaded


class HeldMemory:
    """The bytes that are held now, and the most that may be.

    Attributes:
        num_bytes: Those that are held.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.num_bytes = 0


class Hold:
    """The share of one request, from its first byte until its answer has been taken."""

    def __init__(self, memory: HeldMemory) -> None:
        self._memory = memory
        self._num_bytes = 0

    def add(self, num_bytes: int) -> None:
        """Hold more bytes.

        Raises:
            Refusal: Too many are held already.
        """
        memory = self._memory
        if memory.num_bytes + num_bytes > memory.most:
            raise overloaded(
                f"bodies and answers hold {memory.num_bytes:,} of {memory.most:,} bytes, and "
                f"{num_bytes:,} more are too many now",
                retry_after=1,
            )
        memory.num_bytes += num_bytes
        self._num_bytes += num_bytes

    @property
    def num_bytes(self) -> int:
        """The bytes that are held."""
        return self._num_bytes

    def shrink(self, num_bytes: int) -> None:
        """Hold no more than so many bytes any longer."""
        if (fewer := self._num_bytes - num_bytes) > 0:
            self._memory.num_bytes -= fewer
            self._num_bytes = num_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hold nothing any more."""
        self._memory.num_bytes -= self._num_bytes
        self._num_bytes = 0


def num_bytes(value: Any) -> int:
    """About how many bytes a computed result takes: those of its arrays and tensors."""
    if isinstance(value, tuple | list):
        return sum(map(num_bytes, value))
    return int(getattr(value, "nbytes", 0))
