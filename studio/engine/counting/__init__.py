"""How much a method trains on a model, and what keeps it from that: from names and sizes, before anything loads.

    shapes      a model's weights by name and size, without loading them
    targets     which layers a method adapts
    targeted    the parameters of methods beside chosen layers
    others      those of soft prompts, sublayers and parts of the base
    heads       the head that a stage gives it
    parameters  the count
    faults      what does not fit together

Neither torch nor PEFT is imported here, because the page counts at every keystroke.
"""

from studio.engine.counting.faults import target_faults
from studio.engine.counting.parameters import Count, count
from studio.engine.counting.shapes import Layer, Shapes, shapes_of

__all__ = ["Count", "Layer", "Shapes", "count", "shapes_of", "target_faults"]
