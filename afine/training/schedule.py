"""Learning rate: cosine annealing with restarts, as a function of the iteration."""

import math

from afine.config import ScheduleConfig


def learning_rate(iteration: int, base: float, schedule: ScheduleConfig) -> float:
    """Learning rate of an iteration.

    The release's scheduler steps after the update and counts a period's end to that period:
    iteration period + 1 still runs at eta_min, the restart shows one iteration later.

    Args:
        iteration: number of the iteration, from 1.
        base: learning rate at the start.
        schedule: period, restart factors and the lowest rate.
    """
    step = iteration - 1
    cycle = max(0, math.ceil(step / schedule.period) - 1)
    weight = schedule.restart_weights[min(cycle, len(schedule.restart_weights) - 1)]
    angle = math.pi * (step - cycle * schedule.period) / schedule.period
    swing = 0.5 * (base - schedule.eta_min) * (1 + math.cos(angle))
    return schedule.eta_min + weight * swing
