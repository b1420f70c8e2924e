"""Bytes on disk: folders replaced in one step, weight formats, lazily read tensors, digests, JSON of limited size."""
