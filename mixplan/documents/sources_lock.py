"""sources.lock, which `build` writes beside the plan: what every built source was made of."""

from __future__ import annotations

from mixplan.documents.base import Count, Document, Name, Part, Whole

SOURCES_LOCK = "sources.lock"
"""Its name."""


class LockedFile(Part):
    """An input file; files of the same content are one."""

    bytes: Count
    paths: list[str]
    """Where it was read, relative to the plan."""


class LockedInput(Part):
    """What a source took from a file."""

    sha256: str
    documents: Whole | None = None
    """Those that hold something. Empty where the source was there already and was not read again."""
    tokens: Whole | None = None
    """With the end-of-document tokens. Empty likewise."""


class LockedSource(Part):
    """A built source."""

    mds: str
    """Its folder or URL, as the plan gives it."""
    samples: Count
    sequence_length: Count
    tokens: Count
    """samples × sequence_length."""
    dropped_tokens: Whole
    documents: Whole
    tokenizer: str
    tokenizer_sha256: str | None = None
    index_sha256: str
    """Of index.json in its folder, which has the hashes of the shards."""
    input: list[LockedInput]
    """In the order in which they were read."""


class SourcesLock(Document):
    """sources.lock."""

    files: dict[str, LockedFile] = {}
    """Every input file once, by its SHA-256."""
    sources: dict[Name, LockedSource] = {}

    def shared(self) -> dict[str, list[str]]:
        """SHA-256 of the files that several sources were made of, with the names of these sources."""
        users: dict[str, list[str]] = {}
        for name, source in self.sources.items():
            for sha256 in dict.fromkeys(one.sha256 for one in source.input):
                users.setdefault(sha256, []).append(name)
        return {sha256: names for sha256, names in users.items() if len(names) > 1}
