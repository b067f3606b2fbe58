"""Planning: the time, memory, cost and data that a pretraining will need.

Everything here is arithmetic on numbers. A `Phase` holds those of a model and of its training, a
`Machine` those of the processes; `plan_phase` and `plan_data` say what follows. Nothing is
allocated, and no data is read.
"""

from modernbert.planning.lengths import LONG, WEB, DataPlan, DocumentLengths, plan_data
from modernbert.planning.memory import Memory, plan_memory
from modernbert.planning.phase import CHIPS, Chip, Machine, Phase, find_chip
from modernbert.planning.plan import Communication, PhasePlan, plan_communication, plan_phase

__all__ = [
    "CHIPS",
    "LONG",
    "WEB",
    "Chip",
    "Communication",
    "DataPlan",
    "DocumentLengths",
    "Machine",
    "Memory",
    "Phase",
    "PhasePlan",
    "find_chip",
    "plan_communication",
    "plan_data",
    "plan_memory",
    "plan_phase",
]
