"""LayerNorm's geometry."""
