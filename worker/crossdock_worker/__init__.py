"""The shuffle worker: takes frames, keeps them, serves them."""
