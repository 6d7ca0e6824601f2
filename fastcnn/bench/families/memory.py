"""The most memory that a process holds in training steps, each library in a fresh process."""

from fastcnn.bench.families import step


def cases():
    """The steps of the family `step`."""
    return step.cases("memory", "step_memory", "memory")


inputs = step.inputs
