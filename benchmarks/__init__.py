"""Measurements that take too long, or are too noisy, to be tests."""
