"""The custom resources: what users write (`spec`) and what they read (`status`).

The dataclasses of `cluster` and `job` are the one source: `schema` makes CRDs of them, `reading`
makes them of objects. Stages of a job are those of a job file, whose schema is the client's.
"""
