"""What a turn of the assistant holds besides text: calls of tools, and thoughts."""
