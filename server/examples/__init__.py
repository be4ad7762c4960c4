"""Generator functions to copy: `millrace serve --generator server.examples.count:count`."""
