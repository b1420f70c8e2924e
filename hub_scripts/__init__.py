"""The command line `vit-cls`: thin verbs over the library."""
