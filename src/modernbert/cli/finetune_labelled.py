"""`modernbert finetune classify`, `regress`, `tag` and `answer`: labelled rows to a model."""

from typing import TYPE_CHECKING, Any

import typer

from modernbert.cli import finetune_options as options
from modernbert.cli.finetune_progress import report, tell_of_job
from modernbert.cli.options import AsJson

if TYPE_CHECKING:
    from modernbert.tasks.labels.job import Verb

_SUMMARIES: "dict[Verb, str]" = {
    "classify": "Learn labels of texts or of pairs of texts: one of several, or any number.",
    "regress": "Learn a number for each text or pair of texts.",
    "tag": "Learn labels of words, such as the names of persons and places.",
    "answer": "Learn to find the answers to questions in texts, or that there is none.",
}
_EPILOG = (
    "The model's folder goes to stdout, the progress to stderr. Stopped at any moment, it goes on "
    "where it was when the same command is run again."
)


def add_verbs(app: typer.Typer) -> None:
    """Add the four verbs to the group."""
    for verb, summary in _SUMMARIES.items():
        app.command(name=verb, help=f"{summary}\n\n{_EPILOG}")(_command(verb))


def _command(verb: "Verb") -> Any:
    def command(
        recipe: options.RecipeFile = None,
        model: options.StartModel = None,
        train: options.Rows = None,
        dev: options.DevRows = None,
        test: options.TestRows = None,
        output: options.Output = None,
        text: options.Text = None,
        text_pair: options.TextPair = None,
        label: options.Label = None,
        label_separator: options.LabelSeparator = None,
        max_seqlen: options.MaxSeqlen = None,
        stride: options.Stride = None,
        epochs: options.EpochsOption = None,
        lr: options.Rates = None,
        weight_decay: options.Decays = None,
        batch_size: options.BatchSize = None,
        batch_tokens: options.BatchTokensOption = None,
        micro_batch_tokens: options.MicroBatchTokens = None,
        layer_decay: options.LayerDecay = None,
        freeze_embeddings: options.FreezeEmbeddings = False,
        freeze_layers: options.FreezeLayers = None,
        pooling: options.PoolingOption = None,
        class_weights: options.ClassWeightsOption = None,
        few_shot: options.FewShot = False,
        precision: options.PrecisionChoice = None,
        metric: options.Metric = None,
        patience: options.Patience = None,
        evaluations: options.Evaluations = None,
        seeds: options.Seeds = None,
        processes: options.Processes = None,
        as_json: AsJson = False,
    ) -> None:
        from modernbert.tasks.labels.recipe import FineTuningRecipe
        from modernbert.tasks.labels.runs import fine_tune_all

        each, several = options.sweep_of(epochs, lr, weight_decay, seeds, processes)
        settings = options.recipe_of(
            FineTuningRecipe,
            verb,
            recipe,
            {"model": model, "output": output},
            data={
                "train": train,
                "dev": dev,
                "test": test,
                "text": text,
                "text_pair": text_pair,
                "label": label,
                "label_separator": label_separator,
                "max_seqlen": max_seqlen,
                "stride": stride,
            },
            training={
                "batch_size": batch_size,
                "batch_tokens": batch_tokens,
                "micro_batch_tokens": micro_batch_tokens,
                "layer_decay": layer_decay,
                "freeze_embeddings": freeze_embeddings or None,
                "freeze_layers": freeze_layers,
                "pooling": pooling and pooling.value,
                "class_weights": class_weights and class_weights.value,
                "few_shot": few_shot or None,
                "precision": precision and precision.value,
                "metric": metric,
                "patience": patience,
                "evaluations_per_epoch": evaluations,
                **each,
            },
            sweep=several,
        )
        report(
            settings,
            lambda watch: fine_tune_all(verb, settings, on_job=tell_of_job, on_record=watch),
            as_json=as_json,
        )

    return command
