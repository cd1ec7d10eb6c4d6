"""The end of jobs and clusters: held until nothing of them is left.

    attempts.py   long work, an attempt at a time for each object, beside the reconciling
    workers.py    which workers of a cluster there are, as the API server and the network say it
    listing.py    all ShuffleJobs there are
    jobs.py       ShuffleJobs: held before their first byte, let go after the proof
    clusters.py   ShuffleClusters: held while a job has data there, or the store has
    tidying.py    copies of what deletion needs, that nobody needs any more
    parts.py      these, put together

Nothing is kept over a crash. What is to be done follows from the object, and from what is found in
the store and at the workers.
"""
