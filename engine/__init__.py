"""What the scripts stand on and a reader need not read: the command line, files on disk, processes, the fast
losses, cached generation, what reports share. Imports nothing of ours but model.py."""
