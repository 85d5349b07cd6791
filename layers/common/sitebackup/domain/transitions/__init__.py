"""Every change that a task or an unfinished job may go through: pure functions, each from a job to a Change."""
