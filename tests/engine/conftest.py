from hypothesis import HealthCheck, settings

# the time an example takes says nothing on a busy machine; pytest-timeout catches what hangs
settings.register_profile(
    "millrace",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("millrace")
