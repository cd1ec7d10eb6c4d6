"""What the operator does with clusters' stores: never in its own process.

    access.py        what it takes to reach a cluster's store and workers; the copy of it
    copies.py        that copy, in the operator's own namespace
    tasks.py         what can be asked of a storekeeper, and what it answers
    storekeeper.py   a process that does it: one for each cluster, while there is work
    work.py          what it does: by the very code of `crossdock audit` and of the client
    keepers.py       these processes, as the operator has them
    checks.py        probes and audits, again and again

An S3 client takes memory that an idle operator shall not have, and takes its credentials from the
environment, of which a process has one. So each cluster's work has a process of its own.
"""
