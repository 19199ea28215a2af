"""Who runs the workers of a sweep, and how they are told."""
