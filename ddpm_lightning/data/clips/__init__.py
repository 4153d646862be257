"""Data of a run: a store of clips, its split and its loaders; one file per way to get the store."""
