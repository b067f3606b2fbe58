"""Training: the loop, optimizer, schedule and checkpoints, for any task.

This room knows neither the model nor the data: the trainer is handed a module, and a task that
yields steps and computes losses.
"""
