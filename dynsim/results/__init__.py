"""Results: what a simulation leaves, and how it is measured, drawn, saved and loaded.

`measures` are functions of tokens, `rounding` says how far rounding may have moved them, and a
`trajectory` holds them by sample and depth.
"""
