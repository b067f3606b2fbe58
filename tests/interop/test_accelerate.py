"""`accelerate` and `restore`: the same outputs and gradients, and nothing else is different."""

import copy
import gc
import pickle
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.interop.conftest import Make
from torch import Tensor, nn

from modernbert import accelerate, restore
from modernbert.errors import ConfigError, InputError, ModernBertWarning
from modernbert.interop import their_layers

WITHIN = 1e-5
LENGTHS = (40, 17, 1, 33)
KINDS = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


def inputs(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> dict[str, Tensor]:
    """Random ids and a mask, padded on the right: (rows, columns) int64 both."""
    generator = torch.Generator().manual_seed(seed)
    columns = max(lengths)
    ids = torch.randint(5, 448, (len(lengths), columns), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": (torch.arange(columns) < torch.tensor(lengths)[:, None]).long(),
    }


def for_kind(kind: str, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiple choice takes (rows, choices, columns)."""
    if kind != "ForMultipleChoice":
        return given
    return {name: value.unflatten(0, (-1, 2)) for name, value in given.items()}


def labels_for(kind: str, mask: Tensor) -> dict[str, Tensor]:
    rows = len(mask)
    if kind == "ForSequenceClassification":
        return {"labels": torch.arange(rows) % 3}
    if kind == "ForMultipleChoice":
        return {"labels": torch.zeros(rows // 2, dtype=torch.int64)}
    if kind == "ForQuestionAnswering":
        zeros = torch.zeros(rows, dtype=torch.int64)
        return {"start_positions": zeros, "end_positions": zeros}
    labels = torch.arange(mask.numel()).view(mask.shape) % 3
    return {"labels": labels.masked_fill(mask == 0, -100)}


def tensors(output: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in output.items():
        for index, each in enumerate(value if isinstance(value, tuple) else (value,)):
            yield f"{name} {index}", each


def assert_same(before: Any, after: Any, mask: Tensor, within: float = WITHIN) -> None:
    """Equal at real tokens, and zeros or what follows from these elsewhere."""
    assert type(after) is type(before) and list(after.keys()) == list(before.keys())
    for (name, old), (_, new) in zip(tensors(before), tensors(after), strict=True):
        assert new.shape == old.shape and new.dtype == old.dtype, name
        assert new.requires_grad == old.requires_grad, name
        if old.shape[:2] == mask.shape:
            old, new = old[mask != 0], new[mask != 0]
        assert (new - old).abs().max() < within, name


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_the_same(make: Make, kind: str, head_size: int, with_gradients: bool) -> None:
    model, flat = make(kind, head_size=head_size, classifier_pooling="mean"), inputs()
    options = for_kind(kind, flat)
    with torch.set_grad_enabled(with_gradients):
        before = [model(**options), model(**options, output_hidden_states=True)]
        assert accelerate(model) is model
        after = [model(**options), model(**options, output_hidden_states=True)]
    for old, new in zip(before, after, strict=True):
        assert_same(old, new, flat["attention_mask"])
    if kind == "Model":
        padding = after[0].last_hidden_state[flat["attention_mask"] == 0]
        assert not padding.any() and before[0].last_hidden_state.all(-1).all()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_losses_and_gradients_are_the_same(make: Make, kind: str, head_size: int) -> None:
    model, flat = make(kind, head_size=head_size).train(), inputs()
    options = {**for_kind(kind, flat), **labels_for(kind, flat["attention_mask"])}

    def loss_and_gradients() -> tuple[float, dict[str, Tensor]]:
        model.zero_grad()
        loss = model(**options).loss
        loss.backward()
        return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters()}

    old_loss, old = loss_and_gradients()
    new_loss, new = accelerate(model) and loss_and_gradients()
    assert abs(old_loss - new_loss) < WITHIN
    for name, gradient in old.items():
        scale = float(gradient.abs().max()) + 1e-6
        assert (new[name] - gradient).abs().max() < 1e-4 * scale + 1e-7, name


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5).map(tuple),
    seed=st.integers(0, 99),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_lengths(make: Make, lengths: tuple[int, ...], seed: int) -> None:
    model, options = make("Model"), inputs(lengths, seed)
    with torch.no_grad():
        before = model(**options)
        after = accelerate(model)(**options)
    assert_same(before, after, options["attention_mask"])


def test_other_ways_to_call(make: Make) -> None:
    model, options = make("Model"), inputs()
    mask, ids = options["attention_mask"], options["input_ids"]
    embeds = model.embeddings.tok_embeddings(ids).detach()
    positions = torch.arange(ids.shape[1])[None]
    calls: list[dict[str, Any]] = [
        {"input_ids": ids},
        {"inputs_embeds": embeds, "attention_mask": mask},
        {"input_ids": ids, "attention_mask": mask.bool()},
        {"input_ids": ids, "attention_mask": mask, "position_ids": positions},
        {"input_ids": ids.int(), "attention_mask": mask.float()},
    ]
    with torch.no_grad():
        before = [model(**call) for call in calls]
        accelerate(model)
        for call, old in zip(calls, before, strict=True):
            assert_same(old, model(**call), mask if len(call) > 1 else torch.ones_like(mask))
        (last,) = model(**options, return_dict=False)
    assert (last - before[2].last_hidden_state)[mask != 0].abs().max() < WITHIN


def test_gradients_reach_given_embeddings(make: Make) -> None:
    model, options = make("Model"), inputs()
    embeds = model.embeddings.tok_embeddings(options.pop("input_ids")).detach()
    gradients = []
    for _ in range(2):
        leaf = embeds.clone().requires_grad_()
        hidden = model(inputs_embeds=leaf, **options).last_hidden_state
        (hidden * options["attention_mask"][..., None])[..., 0].sum().backward()
        gradients.append(leaf.grad)
        accelerate(model)
    assert (gradients[0] - gradients[1]).abs().max() < 1e-4
    assert gradients[0].abs().max() > 0.1


def holes(mask: Tensor) -> Tensor:
    changed = mask.clone()
    changed[0, 5:9] = 0
    return changed


def four_dimensional(mask: Tensor) -> dict[str, Tensor]:
    seen = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1).contiguous()
    return {"full_attention": seen, "sliding_attention": seen}


@pytest.mark.parametrize(
    "change",
    [
        lambda given: {**given, "attention_mask": given["attention_mask"].flip(1)},
        lambda given: {**given, "attention_mask": holes(given["attention_mask"])},
        lambda given: {**given, "attention_mask": four_dimensional(given["attention_mask"])},
        lambda given: {**given, "position_ids": 2 * torch.arange(40)[None]},
        lambda given: {**given, "output_hidden_states": [0, -1]},
        lambda given: {**given, "output_attentions": True},
    ],
    ids=["left padding", "holes", "4-D mask", "positions", "some states", "attentions"],
)
def test_what_the_kernels_cannot_give_runs_as_before(make: Make, change: Any) -> None:
    model = make("Model", attn_implementation="eager")
    options = change(inputs())
    with torch.no_grad():
        before = model(**options)
        after = accelerate(model)(**options)
    for (name, old), (_, new) in zip(tensors(before), tensors(after), strict=True):
        assert (old is None and new is None) or torch.equal(old, new), name


def test_other_types(make: Make) -> None:
    options = inputs()
    mask = options["attention_mask"] != 0
    with torch.no_grad():
        exact = make("Model").double()(**options).last_hidden_state
        double = accelerate(make("Model")).double()(**options).last_hidden_state
        half = make("Model").bfloat16()(**options).last_hidden_state
        ours = accelerate(make("Model").bfloat16())(**options).last_hidden_state
    assert torch.equal(double, exact)  # as before
    assert ours.dtype is torch.bfloat16
    error, theirs = (ours - exact)[mask].abs().mean(), (half - exact)[mask].abs().mean()
    assert error < 1.2 * theirs


@pytest.mark.parametrize("with_gradients", [False, True])
def test_autocast(make: Make, with_gradients: bool) -> None:
    options = inputs()
    model, mask = make("ForMaskedLM"), options["attention_mask"] != 0
    with torch.set_grad_enabled(with_gradients):
        exact = model(**options).logits
        with torch.autocast("cpu", torch.bfloat16):
            theirs = model(**options).logits
            ours = accelerate(model)(**options).logits
    assert ours.dtype is theirs.dtype and ours.requires_grad == theirs.requires_grad
    error, their_error = ((x - exact)[mask].abs().mean() for x in (ours, theirs))
    assert error < 1.2 * their_error


@pytest.mark.parametrize("way", ["compiled", "exported"])
def test_what_is_traced_is_the_original(make: Make, way: str) -> None:
    model, ids = make("Model"), inputs()["input_ids"]
    with torch.no_grad():
        before = model(ids).last_hidden_state
        accelerate(model)
        if way == "compiled":
            traced = torch.compile(model, backend="eager")
        else:
            traced = torch.export.export(model, (ids,), strict=False).module()
        assert (traced(ids).last_hidden_state - before).abs().max() < 1e-6


def test_ids_outside_the_vocabulary_are_transformers_affair(make: Make) -> None:
    model = accelerate(make("Model"))
    with torch.no_grad(), pytest.raises(IndexError):
        model(input_ids=torch.tensor([[5, 448]]))


def test_restore_leaves_no_trace(make: Make) -> None:
    model, options = make("ForMaskedLM"), inputs()
    kinds = [type(part) for part in model.modules()]
    attributes = [list(vars(part)) for part in model.modules()]
    with torch.no_grad():
        before = model(**options).logits
        accelerate(model)(**options)
        assert model.model in their_layers._COPIES
        assert restore(model) is model
        assert torch.equal(model(**options).logits, before)
    assert [type(part) for part in model.modules()] == kinds
    assert [list(vars(part)) for part in model.modules()] == attributes
    assert model.model not in their_layers._COPIES


def test_nothing_keeps_a_model_alive(make: Make) -> None:
    model = accelerate(make("Model"))
    with torch.no_grad():
        model(**inputs())
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_twice_is_as_once(make: Make) -> None:
    model = make("ForMaskedLM")
    kind = type(model)
    accelerate(accelerate(model))
    assert type(restore(model)) is kind
    with pytest.raises(InputError, match="ForMaskedLM is not accelerated"):
        restore(model)


def test_models_that_cannot_be(make: Make) -> None:
    with pytest.raises(InputError, match="got a Linear, which contains no ModernBERT"):
        accelerate(nn.Linear(2, 2))
    with pytest.raises(InputError, match="got a str, which contains no ModernBERT"):
        accelerate("answerdotai/ModernBERT-base")  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="accelerate: hidden_activation: 'mish' is not supported"):
        accelerate(make("Model", hidden_activation="mish"))


def test_names_and_files_are_the_same(make: Make, tmp_path: Path) -> None:
    model = make("ForTokenClassification")
    names, parameters = list(model.state_dict()), list(model.parameters())
    model.save_pretrained(tmp_path / "before")
    accelerate(model).save_pretrained(tmp_path / "after")
    assert list(model.state_dict()) == names
    assert all(old is new for old, new in zip(parameters, model.parameters(), strict=True))
    for file in (tmp_path / "before").iterdir():
        assert file.read_bytes() == (tmp_path / "after" / file.name).read_bytes()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_accelerated_and_on_their_own(make: Make, duplicate: Any) -> None:
    model, options = accelerate(make("Model")), inputs()
    with torch.no_grad():
        before = model(**options).last_hidden_state
        other = duplicate(model)
        assert type(other) is type(model) and str(type(other)) == str(type(make("Model")))
        assert torch.equal(other(**options).last_hidden_state, before)
        other.final_norm.weight.zero_()
        assert not other(**options).last_hidden_state.any()
        assert torch.equal(model(**options).last_hidden_state, before)


def fused_step(model: Any) -> None:
    """Fused optimizers do not raise a tensor's version."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(model.parameters(), lr=0.01, fused=True).step()


def load_other(model: Any) -> None:
    model.load_state_dict({name: 1.1 * value for name, value in model.state_dict().items()})


def replace_linear(model: Any) -> None:
    """As adapters do."""
    model.layers[1].attn.Wqkv = nn.Sequential(model.layers[1].attn.Wqkv, nn.Tanh())


def doubled(_module: Any, _arguments: Any, output: Any) -> Any:
    return (2 * output[0], output[1]) if isinstance(output, tuple) else 2 * output


class Halved(nn.Module):
    """Half of what a part gives, in a class that nobody knows."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.attention_type = getattr(part, "attention_type", None)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        found = self.part(*arguments, **options)
        return (found[0] / 2, *found[1:]) if isinstance(found, tuple) else found / 2


def quantize(model: Any) -> None:
    """As `quantize_dynamic` does, which torch announces to remove."""
    from torch.ao.nn.quantized.dynamic import Linear

    for layer in model.layers:
        for part, name in ((layer.attn, "Wqkv"), (layer.attn, "Wo"), (layer.mlp, "Wi")):
            linear = getattr(part, name)
            quantized = Linear(linear.in_features, linear.out_features, bias_=False)
            weight = torch.quantize_per_tensor(linear.weight, 0.01, 0, torch.qint8)
            quantized.set_weight_bias(weight, None)
            setattr(part, name, quantized)


def other_angles(model: Any) -> None:
    model.rotary_emb.full_attention_inv_freq *= 0.5


def replace(name: str, part: Any) -> Any:
    """A change of the second layer: one of its parts becomes another."""

    def change(model: Any) -> None:
        *parents, last = f"layers.1.{name}".split(".")
        parent = model.get_submodule(".".join(parents))
        setattr(parent, last, part(getattr(parent, last)))

    return change


PARTS = {
    "quantized products": quantize,
    "a product in another class": replace("attn.Wo", Halved),
    "a product with a bias": replace(
        "mlp.Wo", lambda old: nn.Linear(old.in_features, old.out_features)
    ),
    "another norm": replace("mlp_norm", lambda old: nn.RMSNorm(old.normalized_shape)),
    "a norm without weights": replace(
        "mlp_norm", lambda old: nn.LayerNorm(old.normalized_shape, 1e-5, False)
    ),
    "a norm's epsilon": lambda model: setattr(model.final_norm, "eps", 0.5),
    "another activation": replace("mlp.act", lambda _: nn.SiLU()),
    "dropout that is none": replace("mlp.drop", Halved),
    "another attention": replace("attn", Halved),
    "another MLP": replace("mlp", Halved),
    "another layer": lambda model: model.layers.__setitem__(1, Halved(model.layers[1])),
    "fewer layers": lambda model: setattr(model, "layers", model.layers[1:]),
    "layers in another order": lambda model: setattr(model, "layers", model.layers[::2]),
    "other angles": other_angles,
    "another rotary module": lambda model: setattr(model, "rotary_emb", Halved(model.rotary_emb)),
    "a parametrized weight": lambda model: torch.nn.utils.parametrizations.weight_norm(
        model.layers[1].mlp.Wi
    ).parametrizations.weight.original0.data.mul_(2),
}

CHANGES = {
    "in place": lambda model: model.layers[0].mlp.Wi.weight.mul_(1.5),
    "through data": lambda model: model.layers[2].attn.Wo.weight.data.mul_(1.5),
    "other data": lambda model: setattr(
        model.layers[2].mlp.Wo.weight, "data", 2 * model.layers[2].mlp.Wo.weight
    ),
    "another parameter": lambda model: setattr(
        model.final_norm, "weight", nn.Parameter(2 * model.final_norm.weight)
    ),
    "fused optimizer": fused_step,
    "load_state_dict": load_other,
    "another module": replace_linear,
    "a hook": lambda model: model.layers[1].mlp.Wo.register_forward_hook(doubled),
    "a hook on the embeddings": lambda model: model.embeddings.register_forward_hook(doubled),
    "another forward": lambda model: setattr(
        model.layers[0].mlp.Wo, "forward", lambda values: values @ values.new_ones(64, 128)
    ),
    "a hook on a layer": lambda model: model.layers[1].register_forward_hook(doubled),
    "a hook on attention": lambda model: model.layers[1].attn.register_forward_hook(doubled),
    "more words": lambda model: model.resize_token_embeddings(500),
    **PARTS,
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(make: Make, change: str) -> None:
    """Whatever was packed for inference is packed anew, or no longer used."""
    model, options = accelerate(make("Model")), inputs()
    with torch.no_grad():
        before = model(**options).last_hidden_state
        CHANGES[change](model)
        after = model(**options)
        expected = restore(model)(**options)
    assert_same(expected, after, options["attention_mask"])
    if change not in ("more words", "a norm without weights"):
        assert (after.last_hidden_state - before).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:accelerate", "ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("change", PARTS)
def test_parts_of_another_make(make: Make, change: str, with_gradients: bool) -> None:
    """They have their effect, or their model is computed as before."""
    model, options = make("Model"), inputs()
    PARTS[change](model)
    with torch.set_grad_enabled(with_gradients):
        assert_same(model(**options), accelerate(model)(**options), options["attention_mask"])


def test_a_model_that_stays_as_it_is_is_named(make: Make) -> None:
    model = make("Model")
    PARTS["another attention"](model)
    with pytest.warns(ModernBertWarning, match=r"layers\.1\.attn \(Halved\) is not transformers'"):
        accelerate(model)


def test_dropout_in_evaluation(make: Make) -> None:
    """Parts that are left in training mode, as for Monte Carlo dropout, are heard."""
    model = accelerate(make("Model", mlp_dropout=0.5))
    options = inputs()
    with torch.no_grad():
        model(**options)
        for layer in model.layers:
            layer.mlp.drop.train()
        first, second = (model(**options).last_hidden_state for _ in range(2))
    assert (first - second).abs().max() > 1e-3


def test_weights_are_packed_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[Any] = []
    pack = their_layers._Copy._packed
    monkeypatch.setattr(
        their_layers._Copy, "_packed", lambda copy, model: packed.append(1) or pack(copy, model)
    )
    model, options = accelerate(make("Model")), inputs()
    with torch.no_grad():
        model(**options), model(**options)
        assert packed == [1]
    model(**options)  # may be a step of training
    with torch.no_grad():
        model(**options)
    assert packed == [1, 1]


def _enable_checkpointing(model: Any) -> None:
    name = "activation_checkpointing_enable"  # version 5.23 renamed it
    enable = getattr(model, name, model.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def test_dropout_and_checkpointing(make: Make) -> None:
    """Dropout of attention probabilities runs as before; checkpointing changes no gradient."""
    model, options = make("Model", attention_dropout=0.5).train(), inputs()
    outputs = []
    for each in (model, accelerate(copy.deepcopy(model))):
        torch.manual_seed(0)
        outputs.append(each(**options).last_hidden_state)
    assert torch.equal(*outputs)

    gradients = []
    for checkpointed in (False, True):
        model = accelerate(make("ForMaskedLM").train())
        if checkpointed:
            _enable_checkpointing(model)
        model(**options, labels=options["input_ids"]).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
