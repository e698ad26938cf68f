"""Architecture search and ablation sweeps for multi-scale convolutions (PyConv, PSConv)."""

__version__ = "0.1.0"
