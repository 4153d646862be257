"""Time sampling: which noise levels a batch is trained at."""
