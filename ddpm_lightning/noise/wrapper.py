"""Schedules made from another schedule."""

from ddpm_lightning.noise.base import NoiseSchedule


class ScheduleWrapper(NoiseSchedule):
    """Changes the schedule it is given, which must have as many steps."""

    def __init__(self, num_steps: int, schedule: NoiseSchedule) -> None:
        super().__init__(num_steps)
        if schedule.num_steps != num_steps:
            raise ValueError(
                f"num_steps={num_steps} must be that of the schedule inside, "
                f"got {schedule.num_steps}"
            )
        self.schedule = schedule
