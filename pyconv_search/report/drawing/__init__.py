"""A network as one picture: what it is made of (anatomy), and how that is drawn (picture and the rest)."""
