"""What a run will need of memory, disk and time, from names and sizes, before anything loads.

    batches      how many tokens the largest batch has
    blocks       a decoder layer's sizes, and which of its layers are adapted
    weights      the base, as it is held
    trained      the adapter, its gradients, and the states of the optimiser
    activations  what the forward pass of trl's path keeps for the backward pass
    logits       its output head and its loss
    fast         the same of the fast path
    process      Python and its libraries, and what an allocator keeps
    parts        all of it together
    changes      the cheapest change that makes a run fit
    disk, pace   checkpoints, and hours
    estimate     the story

Neither torch nor PEFT is imported here, because the page estimates at every keystroke. Not here: what earlier jobs on
this machine tell (studio.jobs.needs), and what a run measures once it is there.
"""

from studio.engine.fit.batches import Rows
from studio.engine.fit.changes import Change
from studio.engine.fit.disk import Disk
from studio.engine.fit.estimate import Fit, Machine, estimate
from studio.engine.fit.parts import takes_fast_path

__all__ = ["Change", "Disk", "Fit", "Machine", "Rows", "estimate", "takes_fast_path"]
