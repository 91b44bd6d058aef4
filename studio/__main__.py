"""`python -m studio` is the `studio` program. Not here: its commands (studio.cli)."""

from studio.cli import main

if __name__ == "__main__":
    main()
