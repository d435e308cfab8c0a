"""What the defences of a study are worth: the naive score beside the worst case, and both beside the undefended victim.

``lineage`` says who is a defence of whom, ``standing`` gathers the numbers of one victim, ``tables``, ``figures`` and
``words`` show them; ``section`` puts them in order.
"""
