"""How fast the data come: the loader, opening a run, and preparing a corpus."""
