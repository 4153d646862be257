"""Training: the wiring of mathematics and data into Lightning."""
