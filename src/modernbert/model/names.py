"""What parameters and models are called in the folders that are exchanged, and here.

The one place that knows the foreign names. They are transformers'; inside the encoder both sides
agree, so the table is short:

    model.embeddings.tok_embeddings.weight, model.embeddings.norm.weight
    model.layers.{i}.attn_norm.weight (not of layer 0), .attn.Wqkv.weight, .attn.Wo.weight,
        .mlp_norm.weight, .mlp.Wi.weight, .mlp.Wo.weight
    model.final_norm.weight
    head.dense.weight, head.norm.weight, decoder.bias, classifier.weight, classifier.bias
"""

# Beginnings of names: here, and in the folder of a model with a head.
_WITH_HEAD = (
    ("encoder.", "model."),
    ("head.", "head."),
    ("decoder_weight", "decoder.weight"),
    ("decoder_bias", "decoder.bias"),
    ("classifier.", "classifier."),
)

# The same for an encoder that is saved alone.
_ALONE = (
    ("encoder.embeddings.", "embeddings."),
    ("encoder.layers.", "layers."),
    ("encoder.final_norm.", "final_norm."),
)

EMBEDDING = "encoder.embeddings.tok_embeddings.weight"
DECODER_BIAS = "decoder_bias"
DECODER_WEIGHT = "decoder_weight"  # a parameter only where it is not the embedding

# Tensors of older files that follow from the config, and that transformers passes over too.
_DERIVED = ("inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "position_ids")
_ROOMS = ("encoder.", "head.", "decoder_", "decoder.", "classifier.")


def to_foreign(name: str, *, alone: bool = False) -> str:
    """Return the name that a folder has for one of our parameters, named as in a model with a head.

    >>> to_foreign("encoder.final_norm.weight"), to_foreign("encoder.final_norm.weight", alone=True)
    ('model.final_norm.weight', 'final_norm.weight')

    Args:
        name: The name of a parameter here.
        alone: For the folder of an encoder without a head.
    """
    for own, foreign in _ALONE if alone else _WITH_HEAD:
        if name.startswith(own):
            return foreign + name.removeprefix(own)
    return name


def from_foreign(name: str) -> str:
    """Return our name for a tensor of a folder of either kind; unknown names stay unchanged.

    What torch puts before the names of a compiled module, or of one of several GPUs, is left out.

    >>> from_foreign("layers.1.attn.Wo.weight"), from_foreign("_orig_mod.decoder.bias")
    ('encoder.layers.1.attn.Wo.weight', 'decoder_bias')
    """
    name = name.removeprefix("module.").replace("_orig_mod.", "")
    for own, foreign in (*_WITH_HEAD, *_ALONE):
        if name.startswith(foreign):
            return own + name.removeprefix(foreign)
    return name


def is_passed_over(name: str) -> bool:
    """Return whether one of our names is of a tensor that no model needs.

    Such are tables that follow from the config, and what a training kept beside the model, such as
    the weights of its loss.

    >>> is_passed_over("encoder.layers.0.attn.rotary_emb.inv_freq"), is_passed_over("loss.scale")
    (True, True)
    >>> is_passed_over("encoder.layers.0.attn.Wqkv.bias")
    False
    """
    return name.endswith(_DERIVED) or not name.startswith(_ROOMS)


def belongs_to_a_head(name: str) -> bool:
    """Return whether one of our names is a head's, which an encoder alone can do without."""
    return name.startswith(("head.", "classifier.", "decoder_"))
