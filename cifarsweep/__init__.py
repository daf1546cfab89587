"""Sweeps over depth, learning rate, optimizer and batch size of small image classifiers."""
