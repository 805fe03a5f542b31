"""Torture: kills, full disks, hostile inputs, flipped bytes, hostile requests, and two of everything at once.

`make torture` runs all parts, `make torture PARTS="kills disk"` some. Each case is a function of the seed and its name.
What is done is kept in a file, so that the same command goes on where it stopped.
"""
