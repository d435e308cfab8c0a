"""MLflow, which no other package imports: a copy of a run's folder, and the curves of a training while it goes on.

``store`` says where and in which words, ``trainings`` keeps one MLflow run for each trained victim, ``listener`` fills
it step by step, ``projection`` copies the whole folder. None of them ever writes into the run's folder.
"""

from __future__ import annotations

from medadv.study.tracking.listener import live
from medadv.study.tracking.projection import track
from medadv.study.tracking.store import plain

__all__ = ["live", "plain", "track"]
