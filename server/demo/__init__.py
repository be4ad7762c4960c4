"""The demo: a Gradio app whose every function is a generator; it knows a server by its URL only."""
