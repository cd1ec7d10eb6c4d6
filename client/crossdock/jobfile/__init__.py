"""The job file: what a user writes down of a staged job."""
