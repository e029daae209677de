"""Mask graphs: center nodes, radii, uniform walks."""
