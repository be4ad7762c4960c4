"""Gradio's counter: values that come one after another.

https://www.gradio.app/guides/getting-started-with-the-python-client
"""

import time


def count(n):  # type: ignore[no-untyped-def] # as Gradio prints it; without types it takes any JSON
    """Count to n, twice a second."""
    for i in range(int(n)):
        time.sleep(0.5)
        yield i
