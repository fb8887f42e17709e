//! A simulated Slurm that drives the real plugin files.
