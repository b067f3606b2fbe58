"""What the processes of a step send to each other, and how long the chips wait for it.

This is arithmetic on sizes and bandwidths in the order in which the trainer sends: see
`training/distributed.py` and `training/computation.py`.

    whole copies    Once per step the gradients are summed, after the last backward pass, so all of
                    this time is waited for.
    fully sharded   In every micro-batch the weights of a part are gathered while the part before
                    it is computed, once for the forward and once for the backward pass. In the
                    last backward pass the gradients of a part are scattered as well.

A collective among n processes sends (n - 1) / n of its bytes through each chip's link, and a sum
sends them twice (a ring; Patarasuk and Yuan 2009).
"""

from dataclasses import dataclass

from modernbert.planning.phase import Machine, Phase

_FLOAT = 4
_SHARE_OF_LINK = 0.75  # that large collectives reach of a datasheet's rate: assumed
_FORWARD_SHARE = 1 / 3  # of a micro-batch's time, as a backward pass has twice the products


@dataclass(frozen=True, kw_only=True)
class Communication:
    """What one process sends in a step.

    Attributes:
        bytes_per_step: The bytes that go out through its link.
        seconds: How long they take.
        waiting_seconds: The part of these seconds in which nothing is computed.
    """

    bytes_per_step: float
    seconds: float
    waiting_seconds: float


def plan_communication(phase: Phase, machine: Machine, seconds: float) -> Communication:
    """Work out what a step sends.

    Args:
        phase: What is trained.
        machine: What it is trained on.
        seconds: How long the step's computation takes.

    Raises:
        InputError: There are several processes, and the rate of their link is not known.
    """
    if machine.num_gpus == 1:
        return Communication(bytes_per_step=0.0, seconds=0.0, waiting_seconds=0.0)
    rate = _SHARE_OF_LINK * machine.link_bytes_per_second()
    once = (1 - 1 / machine.num_gpus) * _FLOAT * phase.config.num_parameters(head=True)
    if not machine.sharded:
        taken = 2 * once / rate
        return Communication(bytes_per_step=2 * once, seconds=taken, waiting_seconds=taken)
    return _sharded(phase, machine, seconds, once, rate)


def _sharded(
    phase: Phase, machine: Machine, seconds: float, once: float, rate: float
) -> Communication:
    """All parts are taken to be of one size: the layers, and the embedding with the head."""
    at_once = phase.micro_batch_tokens * machine.num_gpus
    num_micro_batches = max(1, -(-phase.tokens_per_step // at_once))
    num_parts = phase.config.num_layers + 1
    transfer = once / rate / num_parts
    forward = seconds / num_micro_batches * _FORWARD_SHARE / num_parts
    backward = seconds / num_micro_batches / num_parts - forward
    waited = num_micro_batches * (
        _waiting(transfer, forward, num_parts) + _waiting(transfer, backward, num_parts)
    )
    # The last backward pass also scatters gradients, those of its last part after its end.
    waited += _waiting(2 * transfer, backward, num_parts) - _waiting(transfer, backward, num_parts)
    sent = (2 * num_micro_batches + 1) * once
    return Communication(bytes_per_step=sent, seconds=sent / rate, waiting_seconds=waited)


def _waiting(transfer: float, compute: float, num_parts: int) -> float:
    """Seconds that a pass waits if each part is sent while the one before it is computed.

    >>> _waiting(1.0, 5.0, 10), _waiting(3.0, 1.0, 10)
    (1.0, 21.0)
    """
    return transfer + (num_parts - 1) * max(0.0, transfer - compute)
