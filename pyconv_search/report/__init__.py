"""From the store of a run to statistics, figures and one HTML page. Nothing here imports torch or ray."""
