"""What is decided about the life and the end of a job. Pure: no I/O, and no clock but arguments.

    timing.py     what is assumed of the store and of clocks, and what follows for waiting
    words.py      when an owner was heard, by whom, as bounds on this process's own clock
    facts.py      what is known of a job and only grows: its epoch, fence and releases
    lease.py      what a worker may do for a job now
    runs.py       what becomes of a persist run that nobody carries on
    stopping.py   when nobody writes for a job, or a shuffle, any more
    deletion.py   the procedure that ends in a proof that nothing is left
    sweep.py      what in a store and on disks is an orphan

The worker, the operator, the runner and the command line call these, and so does the simulator in
`tests/lifecycle`. The mechanism as a whole is in docs/architecture.md, Lifecycle; the bounds are in
docs/cleanup.md.

Three rules make the rest small:

- **A right to write comes with a word, and every word carries all facts.** So a worker whose right
  is younger than a fence, a release or an epoch knows of it, and who waits a lease out needs no
  answer.
- **A word counts from before it was sent where it gives rights, and from when it came where it
  delays deletion.** `words.Heard` keeps both, so no delay of a message does harm.
- **Facts only grow**, so it does not matter in which order, how often and by whom they are told.
"""
