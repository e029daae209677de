"""How fast attention collapses, without and with LayerNorm."""
