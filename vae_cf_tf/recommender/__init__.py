"""A recommender in three lines of Python, on top of everything else."""
