"""Training: optimizer, schedule, checkpoints and the loop, for any module and any task.

This room knows neither the model nor the data: the trainer is handed a module, and a task that
yields steps and computes losses.
"""
