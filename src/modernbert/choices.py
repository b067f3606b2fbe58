"""What settings of several rooms choose from, by name; importing it costs nothing."""

from typing import Literal

Pooling = Literal["cls", "mean"]
SparsePooling = Literal["max", "sum"]
TrainingPrecision = Literal["auto", "float32", "bfloat16"]
Objective = Literal["masked", "causal"]
OptimizerName = Literal["stable-adamw", "adamw", "muon"]
