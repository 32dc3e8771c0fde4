"""Several processes that do one run: which one this is, how they exchange values, how they end together.

Every process runs the same program and decides the same things; only passes over data are shared out, and
what they gather is merged in the order of the ranks, so that all hold the same bits. With one process,
which is what there is outside of :func:`coprune.distributed.launch.joined`, everything here is the identity.
"""
