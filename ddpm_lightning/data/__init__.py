"""From GIF bytes to batches: decode and encode GIFs, resample them, cache them, sample windows."""
