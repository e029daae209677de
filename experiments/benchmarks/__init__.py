"""How fast and how exact dynsim is beside what a user would otherwise write.

``python -m experiments.benchmarks [NAMES...] [--list] [--quick] [--threads P] [--out DIR]``

    cases       the work: sizes, masks, floating-point operations counted
    rivals      the same work in numpy, torch and JAX (rivals_numpy, rivals_torch, rivals_jax)
    timing      how long and how often to run; variants take turns
    peaks       what the machine can do, measured in the same run
    compare     one case: all variants checked equal, then timed
    scaling     time and memory against N, samples and threads
    accuracy    errors against 50 digits and against long doubles
    measures    singular values beside numpy and torch, and the call without `record=`
    selectability  time per key to decide which can win, beside HiGHS
    start       wall time of the main job from a cold and a warm start
    report      tables, figure, JSON
"""
