"""Ray beyond one process and one machine: tables are scored and pairs labelled by actors, a reward server scales.

One machine is the default everywhere and needs no Ray.
"""

from __future__ import annotations

from rlaif_sdk.scale.cluster import Workers
from rlaif_sdk.scale.label_job import label_with_actors
from rlaif_sdk.scale.score_job import ScoreResult, score_table
from rlaif_sdk.scale.serve import Autoscaling, deploy

__all__ = ["Autoscaling", "ScoreResult", "Workers", "deploy", "label_with_actors", "score_table"]
