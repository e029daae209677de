"""Models: real transformers as dynamics."""
