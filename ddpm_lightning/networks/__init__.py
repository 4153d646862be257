"""Networks: (B, C, F, H, W) and log-SNR (B,) -> (B, C, F, H, W)."""
