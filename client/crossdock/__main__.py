"""`python -m crossdock`: the command line."""

from crossdock.cli import main

if __name__ == "__main__":
    main()
