"""Training: the loop, optimizers, schedule and checkpoints, for any task.

This room knows neither the model nor the data. The trainer receives a module, and a task that
yields steps and computes losses.
"""
