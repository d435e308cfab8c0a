"""The attack core: tensors in, tensors out; torch alone.

``budget`` and ``threat`` say what may change, ``targets`` and ``losses`` what is answered, ``relabel`` and
``objective`` what is wanted, ``steps`` how a gradient becomes a move; ``loop`` runs it, ``presets`` names the published
settings, ``wrappers`` makes attacks of attacks, ``checks`` doubts the victim.
"""
