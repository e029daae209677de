"""Small transformers that the experiments train. Needs torch: import it inside `compute`.

norms        LayerNorm taken apart: projection, scaling, gain and bias
majority     the majority task: sequences, and the one-layer encoder that learns it
text         real text of every machine as characters: Python's standard library
gpt          language models of GPT-2's shape
classifier   a classifier of texts, of GPT-2's shape but for the mask
ensembles    models of one shape trained side by side, from checkpoints if there are any
checkpoints  the state of a training, as safetensors
hidden       vectors before and after each norm; their angles and lengths
"""
