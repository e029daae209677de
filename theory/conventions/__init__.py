"""Distances and what they are distances to."""
