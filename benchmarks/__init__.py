"""Step times beside ``torch.optim``'s, measured in the same process and run: ``make bench``."""
