"""When to use a method, in a sentence; one that has none here says what its kind is for."""

WHEN: dict[str, str] = {}
