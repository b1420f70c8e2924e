"""The Hugging Face Hub: downloads, pushes, what a push would change, and error messages of one line."""
