"""Weights on disk and on the Hub: reading, writing, strict loading, adapting to another config."""
