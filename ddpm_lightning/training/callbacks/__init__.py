"""Callbacks: averaging, sampling, measuring and showing, beside a module that only trains."""
