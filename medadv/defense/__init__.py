"""Training: one loop, and what is learnt is a lesson.

``lessons`` says what a network learns, ``inner`` how it is attacked meanwhile, ``crops`` what it learns from;
``soft_labels`` keeps what a teacher says. ``training`` has the loop, ``ranks`` the processes that it runs on,
``checkpoints`` what it goes on from.
"""
