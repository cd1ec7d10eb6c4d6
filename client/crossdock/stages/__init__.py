"""Staged jobs: which tasks run when, what each reads, and how they are run."""
