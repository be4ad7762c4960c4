"""Tensors: the only folder where torch lives."""
