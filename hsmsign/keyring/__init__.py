"""Key handles: names, versions, states, labels, and which device holds them."""
