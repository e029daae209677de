"""A network: tokens, weights, norms, an MLP, and the dynamics that they make with a mask.

`dynamics.AttentionDynamics.step` is the definition of one layer, readable and slow; `jacobian` is
its derivative; `deviation` is its form for tokens X = 1 c + s Z.
"""
