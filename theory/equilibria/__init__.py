"""Where LayerNorm stops the collapse."""
