"""The report of a run: one self-contained page, and its figures and tables as files.

``numbers`` spells numbers, ``words`` makes sentences of comparisons, ``tables`` and ``style`` are the two ways a result
leaves the page (CSV and LaTeX; PNG and PDF). Each figure and each group of tables has a file of its own; ``page`` puts
them in order.
"""

from medadv.study.report.page import build

__all__ = ["build"]
