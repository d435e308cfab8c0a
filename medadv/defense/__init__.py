"""Training: one loop, and what is learnt is a lesson.

``training`` has the loop, ``lessons`` what a network learns, ``crops`` what it learns from.
"""
