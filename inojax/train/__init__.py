"""The one training loop: compiled chunks of steps, checkpoints, progress, best so far."""

from ._loop import Trainer as Trainer, TrainLog as TrainLog
