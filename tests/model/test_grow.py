"""Growing by centre tiling, against matrices written out."""

from dataclasses import replace

import pytest
import torch
from tests.model.examples import ragged_batch, small_config, with_random_weights
from torch import Tensor

from modernbert.errors import ConfigError, GrowthWarning
from modernbert.model.config import EncoderConfig, LayerKind, layer_kinds
from modernbert.model.heads import MaskedLanguageModel
from modernbert.model.initialize import LayerMap, centre_indices, grow, layer_indices

SMALL = small_config(
    vocab_size=5,
    hidden_size=4,
    intermediate_size=3,
    num_heads=2,
    layer_kinds=("global", "local"),
    global_theta=10_000.0,
)
# Two more heads of 2: the old width stands between one old head on either side.
LARGE = replace(
    SMALL,
    hidden_size=8,
    intermediate_size=6,
    num_heads=4,
    layer_kinds=("global", "local", "global", "local"),
)
WIDTH = [2, 3, 0, 1, 2, 3, 0, 1]
MLP = [2, 0, 1, 2, 0, 1]


def numbered(model: MaskedLanguageModel) -> MaskedLanguageModel:
    """Every entry of every parameter is another number."""
    first = 0
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.arange(first, first + parameter.numel(), dtype=torch.float32)
            parameter.copy_(values.view_as(parameter))
            first += parameter.numel()
    return model


def grown(layer_map: LayerMap = "kind") -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    small = numbered(MaskedLanguageModel(SMALL))
    large = grow(small, LARGE, layer_map=layer_map)
    assert large.config == LARGE
    return dict(small.named_parameters()), dict(large.named_parameters())


def test_indices_from_the_centre() -> None:
    assert centre_indices(4, 8) == WIDTH
    assert centre_indices(3, 6) == MLP
    assert centre_indices(3, 3) == [0, 1, 2]
    assert centre_indices(2, 7) == [0, 1, 0, 1, 0, 1, 0]
    base_to_large = centre_indices(768, 1024)
    assert base_to_large[:2] == [640, 641] and base_to_large[128:130] == [0, 1]
    assert base_to_large[895:898] == [767, 0, 1] and base_to_large[-1] == 127


def test_a_literal_matrix() -> None:
    """The attention's Wo of the first layer, whose entries are numbered from its first."""
    old, new = grown()
    weight = old["encoder.layers.0.attn.Wo.weight"]
    name = "encoder.layers.0.attn.Wo.weight"
    first = int(weight[0, 0])
    assert (weight - first).tolist() == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    assert (new[name] - first).tolist() == [
        [10, 11, 8, 9, 10, 11, 8, 9],
        [14, 15, 12, 13, 14, 15, 12, 13],
        [2, 3, 0, 1, 2, 3, 0, 1],
        [6, 7, 4, 5, 6, 7, 4, 5],
        [10, 11, 8, 9, 10, 11, 8, 9],
        [14, 15, 12, 13, 14, 15, 12, 13],
        [2, 3, 0, 1, 2, 3, 0, 1],
        [6, 7, 4, 5, 6, 7, 4, 5],
    ]


def test_queries_keys_and_values_are_tiled_each_on_their_own() -> None:
    old, new = grown()
    name = "encoder.layers.1.attn.Wqkv.weight"
    parts = zip(old[name].chunk(3), new[name].chunk(3), strict=True)
    for small, large in parts:
        assert torch.equal(large, small[WIDTH][:, WIDTH])


def test_the_halves_of_the_gated_mlp_are_tiled_each_on_their_own() -> None:
    old, new = grown()
    name = "encoder.layers.0.mlp.Wi.weight"
    for small, large in zip(old[name].chunk(2), new[name].chunk(2), strict=True):
        assert torch.equal(large, small[MLP][:, WIDTH])
    name = "encoder.layers.0.mlp.Wo.weight"
    assert torch.equal(new[name], old[name][WIDTH][:, MLP])


def test_everything_else() -> None:
    old, new = grown()
    name = "encoder.embeddings.tok_embeddings.weight"
    assert torch.equal(new[name], old[name][:, WIDTH])
    assert torch.equal(new["head.dense.weight"], old["head.dense.weight"][WIDTH][:, WIDTH])
    assert torch.equal(new["decoder_bias"], old["decoder_bias"])
    for name in (
        "encoder.embeddings.norm.weight",
        "encoder.layers.1.attn_norm.weight",
        "encoder.layers.0.mlp_norm.weight",
        "encoder.final_norm.weight",
        "head.norm.weight",
    ):
        assert torch.equal(new[name], old[name][WIDTH]), name


def test_layers_come_from_those_of_their_kind() -> None:
    old, new = grown("kind")
    for index, source in enumerate([0, 1, 0, 1]):
        weight = old[f"encoder.layers.{source}.mlp.Wo.weight"][WIDTH][:, MLP]
        assert torch.equal(new[f"encoder.layers.{index}.mlp.Wo.weight"], weight)
    # Layer 0 has no attention norm to give.
    assert torch.equal(new["encoder.layers.2.attn_norm.weight"], torch.ones(8))
    assert torch.equal(
        new["encoder.layers.3.attn_norm.weight"], old["encoder.layers.1.attn_norm.weight"][WIDTH]
    )


def test_layers_by_the_paper_s_map() -> None:
    old, new = grown("paper")
    for index, source in enumerate([0, 0, 1, 1]):  # round(0.5) and round(1.5), halves to even: 0, 2
        weight = old[f"encoder.layers.{source}.mlp.Wo.weight"][WIDTH][:, MLP]
        assert torch.equal(new[f"encoder.layers.{index}.mlp.Wo.weight"], weight)
    assert torch.equal(new["encoder.layers.1.attn_norm.weight"], torch.ones(8))


BASE, BIG = layer_kinds(22), layer_kinds(28)


def test_base_to_large_by_the_paper_s_map() -> None:
    indices = layer_indices(BASE, BIG, "paper")
    assert indices == [round(i * 22 / 28) for i in range(28)]
    wrong = [i for i in range(28) if BIG[i] == "global" and BASE[indices[i]] == "local"]
    assert len(wrong) == 6


def test_base_to_large_by_kind() -> None:
    indices = layer_indices(BASE, BIG, "kind")
    assert all(BASE[j] == kind for j, kind in zip(indices, BIG, strict=True))
    assert [indices[i] for i in range(0, 28, 3)] == [0, 3, 6, 6, 9, 12, 15, 15, 18, 21]
    assert set(indices) == set(range(22))  # no layer is lost


@pytest.mark.parametrize(
    ("old", "new"), [(7, 10), (10, 19), (19, 22), (22, 28), (6, 22), (1, 9), (22, 22), (3, 100)]
)
def test_maps_keep_the_order_within_a_kind(old: int, new: int) -> None:
    before, after = layer_kinds(old), layer_kinds(new)
    indices = layer_indices(before, after, "kind")
    for kind in ("global", "local"):
        own = [j for j, k in zip(indices, after, strict=True) if k == kind]
        assert own == sorted(own)
        assert old < 3 or all(before[j] == kind for j in own)
    assert indices[0] == 0
    by_paper = layer_indices(before, after, "paper")
    assert by_paper == sorted(by_paper) and max(by_paper) < old
    if old == new:
        assert indices == by_paper == list(range(old))


def test_a_kind_that_the_small_model_lacks_comes_from_its_nearest_layers() -> None:
    kinds: list[LayerKind] = ["global"] * 3
    assert layer_indices(kinds, ["global", "local", "global", "local", "global"], "kind") == [
        0,
        0,
        1,
        1,
        2,
    ]


def test_an_odd_number_of_new_heads_cuts_no_head() -> None:
    small = numbered(MaskedLanguageModel(SMALL))
    config = replace(LARGE, hidden_size=6, num_heads=3)
    large = grow(small, config)
    old, new = (m.encoder.layers[1].attn.Wqkv.weight.chunk(3)[0] for m in (small, large))
    heads = [0, 1, 2, 3, 0, 1]  # one head more, behind
    width = [3, 0, 1, 2, 3, 0]  # the residual stream has no heads
    assert torch.equal(new, old[heads][:, width])
    old, new = (m.encoder.layers[1].attn.Wo.weight for m in (small, large))
    assert torch.equal(new, old[width][:, heads])


def test_the_large_model_runs_trains_and_shares_nothing_with_the_small() -> None:
    small = with_random_weights(MaskedLanguageModel(small_config(global_theta=10_000.0)))
    before = [parameter.clone() for parameter in small.parameters()]
    kinds = layer_kinds(6)
    config = small_config(hidden_size=64, num_heads=4, layer_kinds=kinds, global_theta=10_000.0)
    large = grow(small, config)
    assert all(p.requires_grad and p.is_contiguous() for p in large.parameters())
    large(ragged_batch([5, 20])).square().mean().backward()
    with torch.no_grad():
        for parameter in large.parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()
            parameter.zero_()
    assert all(map(torch.equal, small.parameters(), before))


def test_the_same_size_gives_the_same_model() -> None:
    small = with_random_weights(MaskedLanguageModel(small_config(global_theta=10_000.0)))
    large = grow(small, small.config)
    assert all(map(torch.equal, small.parameters(), large.parameters()))


def test_warns_of_a_model_whose_context_was_extended() -> None:
    small = with_random_weights(MaskedLanguageModel(replace(SMALL, global_theta=160_000.0)))
    with pytest.warns(GrowthWarning, match="global theta is 160000, not 10000") as caught:
        grow(small, LARGE)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(LARGE, hidden_size=2, num_heads=1), "hidden_size: got 2, expected 4 or more"),
        (replace(LARGE, intermediate_size=2), "intermediate_size: got 2, expected 3 or more"),
        (replace(LARGE, layer_kinds=("global",)), "num_layers: got 1, expected 2 or more"),
        (replace(LARGE, vocab_size=6), "vocab_size: got 6, expected the small model's 5"),
        (replace(LARGE, num_heads=2), "head_size: got 4, expected the small model's 2"),
    ],
)
def test_refuses(config: EncoderConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grow(numbered(MaskedLanguageModel(SMALL)), config)


def test_refuses_a_map_that_is_none() -> None:
    with pytest.raises(ConfigError, match="layer_map: got 'nearest'"):
        layer_indices(BASE, BIG, "nearest")  # type: ignore[arg-type]
