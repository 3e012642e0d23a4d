"""The judge: whether what the model answers is natural and fits what was said.

`open_judge(config)` gives one; `submit(cases)` returns a handle at once, `handle.result()` the
verdicts: a number from 0 to 2, or *missing* and why.
"""

from rewards.judge.case import build_case
from rewards.judge.config import JudgeConfig, RemoteConfig
from rewards.judge.limits import Budget, Usage
from rewards.judge.open import open_judge
from rewards.judge.outage import JUDGE_AXES, JUDGE_REWARD, Decision, OutageGuard
from rewards.judge.parse import parse_verdict
from rewards.judge.protocol import Case, Handle, Judge, Turn, Verdict
from rewards.judge.remote import RemoteJudge

__all__ = [
    "JUDGE_AXES",
    "JUDGE_REWARD",
    "Budget",
    "Case",
    "Decision",
    "Handle",
    "Judge",
    "JudgeConfig",
    "OutageGuard",
    "RemoteConfig",
    "RemoteJudge",
    "Turn",
    "Usage",
    "Verdict",
    "build_case",
    "open_judge",
    "parse_verdict",
]
