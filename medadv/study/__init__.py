"""An experiment, from the YAML that a user writes to the verdict that a reader trusts.

``spec``, ``attacks`` and ``load`` say what it is; ``cohort`` and ``inputs`` which cases, ``lineup`` which victims,
``conditions`` what is done to them; ``cells`` does it, into the ``folder`` of ``records``; ``scores``, ``pairs``,
``signed_rank`` and ``stats`` judge it; ``report`` and ``tracking`` show it; ``run`` strings them together.
"""
