//! What both plugins share: finding Slurm's functions at run time, logging, version adoption.
