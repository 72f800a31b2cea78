"""Tasks, as of 0.2."""


class Task:
    """What is asked."""


def reward(function):
    """Mark a method of a task as its reward."""
    return function
