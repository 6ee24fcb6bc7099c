"""The optimizer that the methods use unless told otherwise."""

import optax


def one_cycle(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a short warm-up, a cosine decay to zero and clipped gradients.

    Args:
        learning_rate: Peak learning rate.
        steps: Length of the schedule.

    Returns:
        The optimizer.
    """
    schedule = optax.cosine_onecycle_schedule(max(steps, 2), learning_rate, 0.1)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
