"""Grids: at which times a sampler calls the network."""
