"""Job files: what a `ShuffleJob` says (`model`), and how YAML becomes one (`load`).

Only `load` needs the extra `run`; the model is plain.
"""
