"""Any generator as a stream: a user's own function, published as a route. Knows no model."""
