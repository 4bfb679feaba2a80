"""What can go wrong with a repair; each message names the way out."""

from __future__ import annotations

from pipelines.errors import PartitionHeld, PipelineError
from registry.formats.entity_name import key_values


class UnreadableFormat(PipelineError):
    """The rejected ticks of a source cannot be read by themselves."""

    def __init__(self, source: str, format_: str) -> None:
        super().__init__(
            f"{source} is in {format_}: only rejected ticks in JSON can be let in. Send them once "
            "more to a topic of their own, in JSON, or declare the source anew"
        )


class DefinitionsChanged(PipelineError):
    """A version was recorded since the definitions were read that a repair is carried out by."""

    def __init__(self, source: str) -> None:
        super().__init__(
            f"a version of a feature of {source} was recorded meanwhile: the same command goes on "
            "from here, and so does the offline worker"
        )


class RepairElsewhere(PartitionHeld):
    """Another process makes edits of the same entity, and does not end it."""

    def __init__(self, source: str, entity: str) -> None:
        super().__init__(
            f"another process repairs {source} of {'/'.join(key_values(entity))} now, and has not "
            "let go of it for too long: what it has done stays. Run the same command again when it "
            "is done, or stop it: `SELECT pid, query FROM pg_stat_activity WHERE application_name "
            "= 'tickwell repair'` names its sessions"
        )
