"""The one training loop: compiled chunks of steps, checkpoints, progress, best so far."""

from ._checkpoint import Checkpoint as Checkpoint
from ._loop import Loss as Loss, Trained as Trained, Trainer as Trainer, TrainLog as TrainLog
from ._schedule import one_cycle as one_cycle
from ._sharding import shard_batch as shard_batch
