"""What the two papers print: the costs of their networks and their accuracies, and how far this package agrees."""
