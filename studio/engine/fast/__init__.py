"""The fast way through an optimiser step, which gives the very losses and gradients of trl's.

    documents      rows end to end in one pass, what all begin with computed once
    parts          its rows in blocks of like length
    attention      each row sees itself and what all begin with, through transformers' attention interface
    cross_entropy  loss and gradient at supervised positions alone, in chunks
    lora, layers   LoRA linears, norms and gated MLPs that keep less and start fewer kernels
    arena          memory that passes use again, on a CPU
    path           what of it a run can take, why not the rest, and the proof before the first step
    trainer        the step itself, in as few passes as memory allows

Not here: the objective and its rows (studio.engine.stages), and the loop around a step, which is transformers'.
"""
