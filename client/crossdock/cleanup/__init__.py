"""What `crossdock.lifecycle` has decided, done: deleting jobs and shuffles, sweeping stores.

    clearing.py   one pass over what lies below a prefix
    deleting.py   a job, or a shuffle of one, up to the proof that nothing is left
    telling.py    the workers that have to stop, as a client reaches them
    jobs.py       a client's job, ended
    sweeping.py   one pass over all that a cluster has in its store
    fleet.py      the workers as a sweep sees them
    audit.py      both, compared with the jobs that live; showing.py and cli.py: `crossdock audit`

It is used by clients, the runner, the command line and workers.
"""
