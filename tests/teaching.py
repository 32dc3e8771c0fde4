"""The loss of a student that learns from a teacher's logits."""

from coprune.task import TASKS
from coprune.tasks.outputs import Outputs


def taught_loss(logits, teacher, *, temperature):
    """Of a classifier, ``[N, C]`` both."""
    divergence = TASKS["classification"].divergence
    return divergence.taught(Outputs((logits,)), Outputs((teacher,)), temperature=temperature)
