"""Muon: matrices inside layers by orthogonalised momentum, everything else by AdamW.

After Jordan et al. (2024), with the size of the update as in Liu et al., arXiv 2502.16982, so that
a learning rate and a weight decay that suit AdamW suit it too.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modernbert.errors import SettingsError
from modernbert.training.computation import compute_dtype
from modernbert.training.optimizer import StableAdamW, Update
from modernbert.training.tensors import is_sharded, local, own_part, whole

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic whose slope at 0 is steep
_NUM_ITERATIONS = 5
_SMALLEST_NORM = 1e-7
_SIZE_OF_ADAMW = 0.2  # root mean square of AdamW's updates, about


class Muon(StableAdamW):
    """Muon for the groups with `matrix_parts`, and AdamW for all others.

    At a matrix's step, with gradient g and the rate lr of its group:

        b += (1 - momentum) * (g - b)
        u = orthogonalize((1 - momentum) * g + momentum * b)
        p -= lr * (0.2 * sqrt(max(rows, columns)) * u + weight_decay / peak_learning_rate * p)

    A matrix of several parts, such as queries, keys and values in one, is orthogonalised part by
    part. Of a sharded matrix every process gathers the whole momentum, orthogonalises it, and
    changes its own rows. Nothing is read back to the host. Weight decay and steps that are not
    taken are as in `StableAdamW`.

    Args:
        parameters: Groups as `matrix_groups` makes them.
        peak_learning_rate, weight_decay, update: As in `StableAdamW`.
        momentum: The share of the earlier gradients in b.
        betas, eps: Of AdamW, for the other groups.

    Raises:
        SettingsError: A number is out of its range.
        InputError: A parameter is in a reduced precision.
    """

    def __init__(
        self,
        parameters: Iterable[dict[str, Any]],
        *,
        peak_learning_rate: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        update: Update | None = None,
    ) -> None:
        if not 0 <= momentum < 1:
            raise SettingsError(f"momentum: got {momentum}, expected from 0 to below 1")
        super().__init__(
            parameters,
            peak_learning_rate=peak_learning_rate,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            update_clipping=False,
            update=update,
        )
        self.momentum = momentum

    def _advance(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        if not group.get("matrix_parts"):
            super()._advance(parameter, group)
        elif "momentum_buffer" not in self.state[parameter]:
            self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}

    def _update_group(
        self, parameters: list[Tensor], group: dict[str, Any], taken: Tensor | None
    ) -> None:
        if not group.get("matrix_parts"):
            super()._update_group(parameters, group, taken)
            return
        for alike in _alike(parameters):
            updates = [self._average(each, taken) for each in alike]
            self._change(alike, orthogonalize_all(updates, group["matrix_parts"]), group, taken)

    def _average(self, parameter: Tensor, taken: Tensor | None) -> Tensor:
        """Renew a matrix's momentum; the whole of what is to be orthogonalised."""
        assert parameter.grad is not None
        gradient, buffer = parameter.grad, self.state[parameter]["momentum_buffer"]
        new: float | Tensor = 1 - self.momentum
        if taken is not None:
            local(gradient).masked_fill_(~taken, 0)  # a product with 0 would leave a NaN
            new = new * taken.to(local(buffer).dtype)
        local(buffer).lerp_(local(gradient), new)
        return whole(gradient * (1 - self.momentum) + buffer * self.momentum)

    def _change(
        self,
        parameters: Sequence[Tensor],
        updates: Sequence[Tensor],
        group: Mapping[str, Any],
        taken: Tensor | None,
    ) -> None:
        decay = group["lr"] * group["weight_decay"] / group["peak_learning_rate"]
        for parameter, update in zip(parameters, updates, strict=True):
            weight, own = local(parameter), own_part(update, parameter)
            longest = max(parameter.shape[0] // group["matrix_parts"], parameter.shape[1])
            rate = group["lr"] * _SIZE_OF_ADAMW * longest**0.5
            if taken is None:
                weight.mul_(1 - decay).add_(own, alpha=-rate)
            else:
                share = taken.to(weight.dtype)
                weight.mul_(1 - share * decay).sub_(own * (share * rate))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Bring all singular values near 1, by five iterations of Newton and Schulz.

    They end between about 0.7 and 1.2, which does as well as 1 and costs a few products.

    Args:
        matrices: (num_matrices, rows, columns), in any format; computed in bfloat16 where the
            device has units for it.

    Returns:
        The same shape, in the format that was computed in.
    """
    a, b, c = _COEFFICIENTS
    turned = matrices.shape[1] > matrices.shape[2]
    x = matrices.to(compute_dtype(matrices.device, "auto"))
    x = x.mT if turned else x
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if turned else x


def orthogonalize_all(updates: Sequence[Tensor], num_parts: int) -> list[Tensor]:
    """Orthogonalise matrices of one shape, each in so many parts of its rows, in one go."""
    rows, columns = updates[0].shape
    parts = torch.stack(list(updates)).view(-1, rows // num_parts, columns)
    return list(orthogonalize(parts).to(updates[0].dtype).reshape(-1, rows, columns).unbind())


def matrix_groups(groups: Iterable[Mapping[str, Any]], module: nn.Module) -> list[dict[str, Any]]:
    """Divide an optimizer's groups by what Muon does with their tensors.

    Args:
        groups: As of any optimizer.
        module: Its submodules name their matrices in `matrices`, with the number of parts of each:
            a mapping of attributes that have a `weight`.

    Returns:
        Groups of matrices, with `matrix_parts`, and groups of everything else.
    """
    parts = {
        id(getattr(each, name).weight): number
        for each in module.modules()
        for name, number in getattr(each, "matrices", {}).items()
    }
    divided = []
    for group in groups:
        by_parts: dict[int, list[Tensor]] = {}
        for parameter in group["params"]:
            by_parts.setdefault(parts.get(id(parameter), 0), []).append(parameter)
        divided += [
            {**group, "params": each, "matrix_parts": number} for number, each in by_parts.items()
        ]
    return divided


def _alike(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Matrices that are orthogonalised in one go: on an accelerator all of one shape.

    On a CPU, and where they are gathered from shards, one at a time.
    """
    found: dict[Any, list[Tensor]] = {}
    for index, each in enumerate(parameters):
        alone = index if each.device.type == "cpu" or is_sharded(each) else None
        found.setdefault((each.shape, each.device, each.dtype, alone), []).append(each)
    return list(found.values())
