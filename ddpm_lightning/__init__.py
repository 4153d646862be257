"""Video diffusion on short animated GIFs: train, sample, measure and fairly compare."""
