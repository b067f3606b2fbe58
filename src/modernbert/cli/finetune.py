"""`modernbert finetune`: a model for a purpose, from labelled data; one verb a purpose."""

import typer

from modernbert.cli import finetune_labelled, finetune_ranking

app = typer.Typer(
    help="Fine-tune a model: labels, numbers, tags or answers, from labelled data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
finetune_labelled.add_verbs(app)
finetune_ranking.add_verbs(app)
