"""The rows of a stage as tokens, written by the templates of ours: the last stop before a trainer.

conversations  answers to learn, for continued pre-training and SFT; what every kind of rows shares
labelled       texts and the number of their label
pairs          two answers to a prompt, or one that is marked good or bad
prompts        prompts alone, and what an answer is scored by
cache          rows of earlier runs, to be used again
"""
