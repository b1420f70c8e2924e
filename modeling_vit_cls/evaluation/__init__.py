"""Evaluation of classifiers: metrics, a benchmark over a dataset, its Results, an evaluator for `evaluate`."""
