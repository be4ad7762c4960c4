"""Gradio's picture that is made step by step: noise, and noise again, and then the picture.

https://www.gradio.app/guides/streaming-outputs
"""

import time

import numpy as np


def fake_diffusion(steps):  # type: ignore[no-untyped-def] # as Gradio prints it; it takes any JSON
    """Refine a picture step by step, one a second."""
    rng = np.random.default_rng()
    for _ in range(steps):
        time.sleep(1)
        image = rng.random(size=(600, 600, 3))
        yield image
    image = np.ones((1000, 1000, 3), np.uint8)
    image[:] = [255, 124, 0]
    yield image
