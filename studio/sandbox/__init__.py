"""Jinja for programs that strangers wrote: a chat template is one, and may be anything.

    jinja    the environment that chat templates expect, and what a template answers to a request
    limits   what a process may use of the machine, set by itself
    frames   how a request and its answer go through a pipe
    child    `python -m studio.sandbox.child`: a process that answers requests until nobody asks any more

A room of its own that knows no other, because the child imports it: it starts in a twentieth of a second and holds
nothing but Jinja. Not here: who asks (studio.templates.confined), and which templates need a child
(studio.templates.rendering).
"""
