"""Everything that loads or saves a model: runs (Orbax), weights folders, weights specs, what is stored
beside weights.
"""
