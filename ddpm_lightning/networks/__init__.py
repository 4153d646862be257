"""Networks: (B, C, F, H, W) and log-SNR (B,) or (B, F) -> (B, C, F, H, W)."""
