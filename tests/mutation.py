"""How `make mutate` runs property tests: the same examples each time, and the first that fails is enough."""

from hypothesis import Phase, settings

settings.register_profile(
    "mutation", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("mutation")
