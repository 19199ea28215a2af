"""A JAX research codebase for language models."""
