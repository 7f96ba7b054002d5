"""The peers' servers of the first model, run by their own interpreters, with nothing of ours but `linear`."""
