"""How a model sits in transformers 4.57 and 5."""
