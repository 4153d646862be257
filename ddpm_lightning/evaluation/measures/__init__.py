"""Measures: one file each."""
