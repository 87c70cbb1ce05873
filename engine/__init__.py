"""What a reader may skip: the command line, files on disk, checkpoints and run folders, processes, the fast
losses, cached generation. Imports nothing of ours but model.py."""
