"""Films to learn from: diffusion in pictures, without a trained network. One film a file."""
