"""Subclasses of transformers' ModernBERT classes that compute without padding.

An instance is accelerated and restored by setting its `__class__`. Each subclass has the full name
of its original, so that code that looks at names, such as `architectures` in a saved config.json,
sees no difference; docs/decisions/accelerate.md explains why.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput
from transformers.models.modernbert import modeling_modernbert as theirs

from modernbert.errors import InputError
from modernbert.interop.batches import PACKED_KEYS, Inputs, has_padding
from modernbert.interop.their_layers import (
    can_run,
    encoder_config,
    forget,
    hidden_from_copy,
    hidden_states,
    unknown_part,
)

C = TypeVar("C", bound=type)

_PACKED_BY_ORIGINAL: dict[type, type] = {}
# The option that makes an encoder run transformers' own code.
_AS_BEFORE = "_modernbert_as_before"

__all__ = [
    "encoder_config",
    "is_accelerated",
    "is_encoder",
    "original_of",
    "swap",
    "swap_back",
    "unknown_part",
]


def original_of(part: nn.Module) -> type | None:
    """Return the transformers class of a module, accelerated or not, or None for other modules."""
    kind = type(part)
    return getattr(kind, "_original", kind if kind in _PACKED_BY_ORIGINAL else None)


def is_encoder(part: nn.Module) -> bool:
    """Return whether a module is an encoder itself and not a model with a head."""
    return original_of(part) is theirs.ModernBertModel


def is_accelerated(part: nn.Module) -> bool:
    """Return whether a module has one of the classes of this file."""
    return isinstance(part, _Accelerated)


def swap(part: nn.Module) -> None:
    """Give a transformers module the accelerated class, if it does not have it already."""
    if not is_accelerated(part):
        part.__class__ = _PACKED_BY_ORIGINAL[type(part)]


def swap_back(part: nn.Module) -> None:
    """Give a module its original class back."""
    forget(part)
    part.__class__ = type(part)._original  # type: ignore[attr-defined]


class _Accelerated:
    """The base of the classes of this file: copies and pickles stay accelerated."""

    _original: type

    def __reduce_ex__(self, protocol: Any) -> Any:
        # With only the name of the class, pickle would find the original in transformers.
        reduced: Any = super().__reduce_ex__(max(protocol, 2))
        _, _, *state = reduced
        return _blank, (self._original,), *state


def _blank(original: type) -> Any:
    """Make an empty instance of the accelerated form of a class, for pickle to fill."""
    packed: Any = _PACKED_BY_ORIGINAL[original]
    return packed.__new__(packed)


def _stands_for(original: type) -> Callable[[C], C]:
    """Give a class the name and the signature of its original."""

    def named(packed: C) -> C:
        for attribute in ("__name__", "__qualname__", "__module__", "__doc__"):
            setattr(packed, attribute, getattr(original, attribute))
        forward: Any = packed.forward  # type: ignore[attr-defined]
        forward.__signature__ = inspect.signature(original.forward)  # type: ignore[attr-defined]
        packed._original = original  # type: ignore[attr-defined]
        _PACKED_BY_ORIGINAL[original] = packed
        return packed

    return named


@_stands_for(theirs.ModernBertModel)
class _Encoder(_Accelerated, theirs.ModernBertModel):
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **options: Any,
    ) -> Any:
        as_before = options.pop(_AS_BEFORE, False)
        given = Inputs(input_ids, attention_mask, position_ids, inputs_embeds, options)
        batch = None if as_before or not can_run(self, options) else given.packed()
        if batch is None:
            if given.is_packed:
                raise InputError(
                    "packed batch: cannot be computed with these options "
                    f"({', '.join(sorted(options.keys() - PACKED_KEYS)) or 'none'}); pad the batch"
                )
            return super().forward(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                **options,
            )
        keep = bool(options.get("output_hidden_states", self.config.output_hidden_states))
        copied = None if keep or given.embeds is not None else hidden_from_copy(self, batch)
        if copied is not None:
            states = [copied]
        else:
            states = hidden_states(self, batch, given.flat_embeds(batch), keep_all=keep)
        padded = [given.as_given(batch, hidden) for hidden in states]
        output = BaseModelOutput(
            last_hidden_state=padded[-1], hidden_states=tuple(padded) if keep else None
        )
        as_dict = options.get("return_dict", getattr(self.config, "return_dict", True))
        return output if as_dict is not False else output.to_tuple()


@_stands_for(theirs.ModernBertForMaskedLM)
class _MaskedLM(_Accelerated, theirs.ModernBertForMaskedLM):
    """Computes the logits of a packed batch with labels only at tokens that have a label."""

    def forward(self, *arguments: Any, labels: Tensor | None = None, **options: Any) -> Any:
        if labels is None or not PACKED_KEYS & options.keys():
            return super().forward(*arguments, labels=labels, **options)
        as_dict = options.pop("return_dict", getattr(self.config, "return_dict", True))
        output = self.model(*arguments, **options)
        rows = labels != self.sparse_pred_ignore_index
        logits = self.decoder(self.head(output.last_hidden_state[rows]))
        options["vocab_size"] = self.config.vocab_size
        loss = self.loss_function(logits, labels[rows], **options)
        answer = MaskedLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)
        return answer if as_dict is not False else answer.to_tuple()


@_stands_for(theirs.ModernBertForTokenClassification)
class _TokenClassification(_Accelerated, theirs.ModernBertForTokenClassification):
    pass


@_stands_for(theirs.ModernBertForSequenceClassification)
class _SequenceClassification(_Accelerated, theirs.ModernBertForSequenceClassification):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        _refuse_packed(options)
        return super().forward(*arguments, **options)


@_stands_for(theirs.ModernBertForMultipleChoice)
class _MultipleChoice(_Accelerated, theirs.ModernBertForMultipleChoice):
    def forward(self, *arguments: Any, **options: Any) -> Any:
        _refuse_packed(options)
        return super().forward(*arguments, **options)


@_stands_for(theirs.ModernBertForQuestionAnswering)
class _QuestionAnswering(_Accelerated, theirs.ModernBertForQuestionAnswering):
    """Leaves the loss of a padded batch to transformers, as that loss depends on the padding."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        *arguments: Any,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **options: Any,
    ) -> Any:
        _refuse_packed(options)
        if start_positions is not None and has_padding(attention_mask):
            options[_AS_BEFORE] = True
        return super().forward(
            input_ids,
            attention_mask,
            *arguments,
            start_positions=start_positions,
            end_positions=end_positions,
            **options,
        )


def _refuse_packed(options: dict[str, Any]) -> None:
    if PACKED_KEYS & options.keys():
        raise InputError(
            "packed batch: this model gives one result per row, and a packed batch is a single "
            "row; pad its batches (an accelerated model computes nothing for the padding)"
        )
