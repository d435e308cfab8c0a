"""Models as other tools leave them on disk, each read into a ``Segmenter``.

A format is a module with ``recognises(path)`` and ``load(path, declared, trust)``; ``opening`` is the one door to all.
"""
