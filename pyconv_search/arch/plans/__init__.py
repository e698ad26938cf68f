"""How the convolutions are executed: the same numbers from other convolutions, and which of them is fastest."""
