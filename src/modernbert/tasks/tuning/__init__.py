"""What every fine-tuning shares, whatever it learns: runs, sweeps, results and the page."""
