"""What is on disk: identity, records, reading, writing, locks. Knows no Hydra and no PyTorch."""
