"""One training: its ranks, memory, Lightning around it."""
