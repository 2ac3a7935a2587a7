"""The tasks that a race can be run on: real data, none of it downloaded."""

from collections.abc import Callable, Sequence

from thalweg.names import unknown
from thalweg.race.objects import build
from thalweg.race.protocol import TaskError
from thalweg.race.task import Task
from thalweg.race.tasks.digits import digits
from thalweg.race.tasks.tabular import breast_cancer, diabetes
from thalweg.race.tasks.text import embedding, transformer

TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "diabetes": diabetes,
    "transformer": transformer,
    "embedding": embedding,
}


def find_task(spec: str) -> Task:
    """The task that a specification stands for.

    Args:
        spec: a name of :data:`TASKS`; or ``my_module:build``, a function without arguments that
            returns a :class:`Task`, importable from the current folder.

    Raises:
        ValueError: no such task (the message suggests the nearest name), or the function fails or
            returns something else.
        ModuleNotFoundError: the task needs a package that is not installed.

    >>> find_task("embedding").metric
    'loss'
    """
    if spec in TASKS:
        return TASKS[spec]()
    if ":" not in spec:
        raise unknown("race", "task", spec, TASKS)
    task = build("race", spec)
    if not isinstance(task, Task):
        raise TaskError(
            f"race: task {spec} must return a thalweg.race.Task, got {type(task).__name__}"
        )
    return task


def find_all(specs: Sequence[str]) -> list[Task]:
    """The tasks of these specifications.

    Raises:
        ValueError: as :func:`find_task`; or two have the same name.
    """
    tasks = [find_task(spec) for spec in specs]
    for i, task in enumerate(tasks):
        if task.name in [other.name for other in tasks[:i]]:
            raise ValueError(
                f"race: two tasks have the name {task.name!r} ({', '.join(specs)}); leave one out "
                "or give it another name"
            )
    return tasks
