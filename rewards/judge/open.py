"""From the configuration of a run to its judge."""

from rewards.judge.config import JudgeConfig
from rewards.judge.protocol import Judge
from rewards.judge.remote import RemoteJudge


def open_judge(config: JudgeConfig) -> Judge | None:
    """The judge that a run asked for by name; None = it asked for none.

    Raises:
        ImportError: what the judge needs is not installed; it says what to install.
    """
    if config.kind == "none":
        return None
    if config.kind == "embedded":
        from rewards.judge.embedded import EmbeddedJudge

        return EmbeddedJudge()
    return RemoteJudge(config.remote)
