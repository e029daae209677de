"""Derivatives of softmax attention and of the norms."""
