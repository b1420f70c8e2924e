"""The Hugging Face Hub: downloads, pushes, what a push would change, and errors in one line."""
