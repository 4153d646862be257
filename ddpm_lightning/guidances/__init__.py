"""Guidance as an option of a command: which estimator leads samples to what is asked for."""
