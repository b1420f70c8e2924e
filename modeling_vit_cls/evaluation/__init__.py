"""How good a classifier is: metrics, a benchmark over a dataset, its results as files, an evaluator for `evaluate`."""
