"""What a model is worth: the stories of the evaluation jobs, and what a run measures before and after its steps.

    answers, labels, pairs   one story each: models that write, classifiers, reward models
    classifying, judging     what a classifier and a reward model say of texts
    preferring, rewarding    what a stage measures of the model it trains
    examined                 how that is told and kept

Not here: the scores themselves (studio.engine.metrics).
"""
