"""Pictures: grids of clips, films of the reverse process, curves."""
