"""The scores of a fine-tuning, as its card tells them."""

from modernbert.tasks.tuning.results import Results


def score_table(results: Results) -> str:
    """Each score of the best run; of several seeds also the mean and the spread."""
    best, combination = results.best, results.best_combination
    several = len(combination.outcomes) > 1
    lines = ["| score | rows | value |" + (" mean over seeds |" if several else "")]
    lines.append("|---|---|---|" + ("---|" if several else ""))
    for split in ("dev", "test"):
        for name, value in getattr(best, split).items():
            line = f"| {name} | {split} | {value:.4f} |"
            if several:
                spread = combination.spread(split)[name]
                line += f" {combination.mean(split)[name]:.4f} ± {spread:.4f} |"
            lines.append(line)
    if len(lines) == 2:
        return "None: no rows were held out."
    if best.dev:
        lines.append(f"\nThe weights were chosen by {results.metric} on the dev rows.")
    return "\n".join(lines)
