"""AdamW, and StableAdamW, which lowers the rate of a tensor whose gradient is unusually large.

StableAdamW is the optimizer of the paper (P section 2.2.2 and table 3), after Wortsman et al.,
arXiv 2304.13013; without its clipping of updates it is AdamW.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modernbert.devices import has_triton
from modernbert.errors import InputError, SettingsError
from modernbert.training.tensors import is_sharded, local, sum_over_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorUpdate:
    """One tensor's step, its rule being that of `StableAdamW`.

    Attributes:
        weight, gradient, mean, square: Of one shape; all but the gradient are changed in place.
        new_mean, new_square: The shares that this gradient has in the two averages.
        eps: Added to the root of `square`, and the least size of a gradient that is expected.
        rate: The learning rate, before a surprise lowers it.
        decay: Of the weight, as a part of the rate.
        is_clipped: Whether a surprise lowers the rate.
    """

    weight: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    new_mean: float
    new_square: float
    eps: float
    rate: float
    decay: float
    is_clipped: bool


Update = Callable[[Sequence[TensorUpdate]], Sequence[bool]]
"""Does the steps of some tensors and says which; the others are left to torch's operations."""


class StableAdamW(Optimizer):
    """AdamW with update clipping in place of gradient clipping, and decoupled weight decay.

    At a tensor's step t, with gradient g and the rate lr of its group:

        m += (1 - b1) / (1 - b1^t) * (g - m)            debiased mean of the gradients
        v += (1 - b2) / (1 - b2^t) * (g^2 - v)          and of their squares
        rate = lr / max(1, sqrt(mean(g^2 / max(v, eps^2))))
        p -= rate * (m / (sqrt(v) + eps) + weight_decay / peak_learning_rate * p)

    The weight decay is fully decoupled: at the peak rate a weight shrinks by `weight_decay` a
    step, whatever that rate is. Everything is tensor arithmetic; nothing is read back to the host.
    A step that is not taken counts all the same, as the host need not know of it.

    Of a tensor that is sharded over processes each process updates its part; `mean` is over the
    whole tensor all the same.

    Deviation: `peak_learning_rate` is this phase's own; the paper's code kept that of the first.

    Args:
        parameters: Tensors, or groups as `parameter_groups` makes them; float32 or float64. Those
            in float32 on a GPU are changed by the kernels of `fused_update`.
        peak_learning_rate: The highest rate of the phase; `group["lr"]` starts there and is set
            before each step by whoever holds the schedule.
        betas, eps: As above (P table 3).
        weight_decay: For the groups that do not set their own.
        update_clipping: Whether the rate is lowered as above; without it, this is AdamW.
        update: What does the steps of tensors on the CPU in one pass, such as the C kernels.

    Raises:
        SettingsError: A rate, beta, eps or decay out of its range.
        InputError: A parameter in a reduced precision.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        peak_learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        update_clipping: bool = True,
        update: Update | None = None,
    ) -> None:
        _check(peak_learning_rate, betas, eps, weight_decay)
        defaults = {
            "lr": peak_learning_rate,
            "peak_learning_rate": peak_learning_rate,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "update_clipping": update_clipping,
        }
        super().__init__(parameters, defaults)
        self._fused = update
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.dtype not in (torch.float32, torch.float64):
                    raise InputError(
                        f"a parameter of {parameter.dtype}, expected float32: keep the weights in "
                        "float32 and compute under autocast"
                    )

    @overload
    def step(self, closure: None = None, *, taken: Tensor | None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float], *, taken: Tensor | None = None) -> float: ...
    @torch.no_grad()
    def step(
        self, closure: Callable[[], float] | None = None, *, taken: Tensor | None = None
    ) -> float | None:
        """Update every parameter that has a gradient; the others keep weight and state.

        Args:
            closure: Not supported; it must be None.
            taken: A boolean, where the parameters are; False leaves all weights and averages as
                they are, whatever the gradients. Only the CPU's is looked at by the host.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        is_skipped = False
        if taken is not None and taken.device.type == "cpu":
            is_skipped, taken = not taken, None
        for group in self.param_groups:
            with_gradient = [p for p in group["params"] if p.grad is not None]
            for parameter in with_gradient:
                self._advance(parameter, group)
            if not is_skipped:
                self._update_group(with_gradient, group, taken)
        return loss

    def _update_group(
        self, parameters: list[Tensor], group: dict[str, Any], taken: Tensor | None
    ) -> None:
        left = self._update_fused(parameters, group) if taken is None else parameters
        for step, batch in self._batches(left):
            if not self._update_on_gpu(batch, group, taken):
                self._update(batch, step, group, taken)

    def _advance(self, parameter: Tensor, group: Mapping[str, Any]) -> None:
        """Count one more step of a tensor, which begins with empty averages."""
        del group
        state = self.state[parameter]
        if "exp_avg" not in state:  # new, or until now of another optimizer
            state.clear()
            state["step"] = torch.tensor(0.0)  # on the host, so that reading it waits for nothing
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1

    def _update_fused(self, parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Hand whole tensors to `update`; those that are left."""
        if self._fused is None:
            return parameters
        whole = [p for p in parameters if p.device.type == "cpu" and not is_sharded(p)]
        done = self._fused([self._describe(p, group) for p in whole])
        finished = {id(p) for p, is_done in zip(whole, done, strict=True) if is_done}
        return [p for p in parameters if id(p) not in finished]

    def _update_on_gpu(
        self, parameters: list[Tensor], group: dict[str, Any], taken: Tensor | None
    ) -> bool:
        """Do the steps of tensors that are alike by Triton kernels; whether these take them."""
        if not has_triton(parameters[0].device):
            return False
        from modernbert.training import fused_update

        updates = [self._describe(each, group) for each in parameters]
        if not fused_update.suits(updates):
            return False
        add_up = partial(sum_over_shards, like=parameters[0])
        num_values = [each.numel() for each in parameters]
        fused_update.update(updates, num_values, taken, add_up)
        return True

    def _describe(self, parameter: Tensor, group: dict[str, Any]) -> TensorUpdate:
        state, (beta1, beta2) = self.state[parameter], group["betas"]
        step = int(state["step"])
        assert parameter.grad is not None
        return TensorUpdate(
            weight=local(parameter.detach()),
            gradient=local(parameter.grad),
            mean=local(state["exp_avg"]),
            square=local(state["exp_avg_sq"]),
            new_mean=(1 - beta1) / (1 - beta1**step),
            new_square=(1 - beta2) / (1 - beta2**step),
            eps=group["eps"],
            rate=group["lr"],
            decay=group["weight_decay"] / group["peak_learning_rate"],
            is_clipped=group["update_clipping"],
        )

    def _batches(self, parameters: list[Tensor]) -> Iterator[tuple[int, list[Tensor]]]:
        """Parameters to update in one go, with their step: all alike on an accelerator.

        On the CPU one at a time: its foreach kernels go tensor by tensor anyway, and so a tensor
        stays in the cache from one operation to the next.
        """
        alike: dict[Any, list[Tensor]] = {}
        for index, parameter in enumerate(parameters):
            step = int(self.state[parameter]["step"])
            alone = index if parameter.device.type == "cpu" and not is_sharded(parameter) else None
            key = (step, parameter.device, parameter.dtype, is_sharded(parameter), alone)
            alike.setdefault(key, []).append(parameter)
        for (step, *_), batch in alike.items():
            yield step, batch

    def _update(
        self, parameters: list[Tensor], step: int, group: dict[str, Any], taken: Tensor | None
    ) -> None:
        """Update tensors on one device by the formulas of the class.

        On a device, reading a number back would wait for all work that was launched. So whether
        the step is taken is a tensor too (`taken`): gradients become 0 where it is false, and
        `share`, 1 or 0, multiplies each change of averages and weights. A step that is not taken
        thus leaves every number as it was, without any branch on the host. The `_foreach_`
        operations compute all tensors of a group together, with few launches.
        """
        (beta1, beta2), eps = group["betas"], group["eps"]
        gradients = [local(p.grad) for p in parameters if p.grad is not None]
        means = [local(self.state[p]["exp_avg"]) for p in parameters]
        squares = [local(self.state[p]["exp_avg_sq"]) for p in parameters]
        weights = [local(p) for p in parameters]
        share: Tensor | float = 1.0  # of the step that is taken: all of it, or 0
        if taken is not None:
            for gradient in gradients:
                gradient.masked_fill_(~taken, 0)  # a product with 0 would leave a NaN
            share = taken.to(weights[0].dtype)
        new_mean, new_square = (1 - beta1) / (1 - beta1**step), (1 - beta2) / (1 - beta2**step)
        torch._foreach_mul_(means, 1 - share + share * (1 - new_mean))
        torch._foreach_add_(means, gradients, alpha=new_mean)
        torch._foreach_mul_(squares, 1 - share + share * (1 - new_square))
        torch._foreach_addcmul_(squares, gradients, gradients, value=new_square)

        denominators = torch._foreach_sqrt(squares)
        if group["update_clipping"]:
            surprises = torch._foreach_div(gradients, torch._foreach_maximum(denominators, eps))
            scales = _scales(surprises, parameters)
        else:
            scales = [each.new_ones(()) for each in weights]
        torch._foreach_mul_(scales, share)
        torch._foreach_add_(denominators, eps)
        updates = torch._foreach_div(means, denominators)
        if group["weight_decay"]:
            decay = group["weight_decay"] / group["peak_learning_rate"]
            torch._foreach_add_(updates, weights, alpha=decay)
        torch._foreach_addcmul_(weights, updates, scales, value=-group["lr"])


@torch.no_grad()
def clip_gradients(module: nn.Module, norm: Tensor, most: float) -> None:
    """Scale a module's gradients down when their norm exceeds a maximum.

    Args:
        module: The module, with gradients.
        norm: The norm of all gradients together, a scalar tensor; it stays on the device.
        most: The highest norm.
    """
    gradients = [local(p.grad) for p in module.parameters() if p.grad is not None]
    if not gradients:  # of a step without a target
        return
    torch._foreach_mul_(gradients, (most / norm.clamp(min=most)).to(gradients[0].dtype))


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Divide a module's trainable parameters into matrices, which decay, and the rest.

    Norms and biases (parameters of one dimension) have no weight decay (P appendix "Weight
    Decay"); embeddings have. A parameter that several modules share is listed once.
    """
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def embedding_groups(
    groups: Iterable[dict[str, Any]], module: nn.Module, embedding_rate: float
) -> list[dict[str, Any]]:
    """Give the token embeddings a learning rate of their own.

    Args:
        groups: The optimizer's groups of the module's parameters.
        module: The module; a decoder that is tied to its embeddings learns at their rate.
        embedding_rate: Relative to the rate that the groups have.

    Returns:
        The groups, those with embeddings divided in two; the rate of one is multiplied by its
        `rate_factor`.
    """
    embeddings = {id(each.weight) for each in module.modules() if isinstance(each, nn.Embedding)}
    divided: list[dict[str, Any]] = []
    for group in groups:
        for is_embedding in (False, True):
            some = [p for p in group["params"] if (id(p) in embeddings) == is_embedding]
            factor = group.get("rate_factor", 1.0) * (embedding_rate if is_embedding else 1.0)
            divided += [{**group, "params": some, "rate_factor": factor}] if some else []
    return divided


def _scales(surprises: list[Tensor] | tuple[Tensor, ...], parameters: list[Tensor]) -> list[Tensor]:
    """Compute 1 / max(1, root mean square) of each tensor, as scalar tensors.

    `surprises` holds this process's shards; `parameters` say how large the whole tensors are.
    """
    sizes = [max(1, parameter.numel()) ** -0.5 for parameter in parameters]
    norms = torch._foreach_norm(surprises)
    if is_sharded(parameters[0]):
        squares = sum_over_shards(torch.stack(norms).square(), parameters[0])
        norms = squares.sqrt().unbind()
    scales = list(torch._foreach_mul(norms, sizes))
    torch._foreach_clamp_min_(scales, 1.0)
    torch._foreach_reciprocal_(scales)
    return scales


def _check(
    peak_learning_rate: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> None:
    if not 0 < peak_learning_rate < float("inf"):
        raise SettingsError(f"peak_learning_rate: got {peak_learning_rate}, expected above 0")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise SettingsError(f"betas: got {betas}, expected two numbers from 0 to below 1")
    if not 0 < eps < float("inf"):
        raise SettingsError(f"eps: got {eps}, expected above 0")
    if not 0 <= weight_decay < 1:
        raise SettingsError(f"weight_decay: got {weight_decay}, expected from 0 to below 1")
