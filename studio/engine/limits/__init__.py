"""What a run does where memory or disk are short.

    preflight  one real step on the longest batch, before the first
    recovery   smaller batches from the last step, after memory ran out in the middle
    memory     which errors say so
    disk       waits for room before a checkpoint is written

Not here: the estimate, which needs no model (studio.engine.fit).
"""
