"""`python -m raftcron` is the command `raftcron`."""

from raftcron.cli import main

if __name__ == "__main__":
    main(prog_name="raftcron")
