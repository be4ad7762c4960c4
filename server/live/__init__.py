"""What the server is doing now: the feed of `GET /events` and what it is made of."""
