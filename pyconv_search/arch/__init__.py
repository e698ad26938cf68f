"""What a network is and what it costs: plain frozen values and closed forms, without torch."""
