"""What a person sees on a terminal: progress, printed tables, error lines."""
