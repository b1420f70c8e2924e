"""The command line `vit-cls`: one small module for each verb; the work is done by the library."""
