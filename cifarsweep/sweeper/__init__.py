"""The engine: the Hydra plugins `study` and `local`, and what they are made of. Knows no PyTorch, images or reports."""
