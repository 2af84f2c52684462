"""A source together with the form of its records, the filters they pass and the answers that replace theirs.

This is what a joint-training configuration lists, and what loaders read examples from.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from mammoth_jax.core.errors import InputError
from mammoth_jax.data.edit_forms import Editing, EditingChain, EditingConversation, EditingTurns
from mammoth_jax.data.example import Example, Place, Task, TaskForm
from mammoth_jax.data.filters import Filter, check_example, check_record
from mammoth_jax.data.folder import Folder
from mammoth_jax.data.joins import FilePerKey, TableByKey
from mammoth_jax.data.json_records import AnnotationLists, JsonRecords
from mammoth_jax.data.overrides import AnswerOverrides
from mammoth_jax.data.parquet import Parquet
from mammoth_jax.data.precomputed import Precomputed
from mammoth_jax.data.record import Encoded, Picture, Record, ShardedSource, Source
from mammoth_jax.data.shard_writer import picture_key
from mammoth_jax.data.synthetic.tasks import (
    SyntheticDocuments,
    SyntheticDrawings,
    SyntheticEdits,
    SyntheticQuestions,
    SyntheticRiddles,
    SyntheticTask,
)
from mammoth_jax.data.tars import Tars
from mammoth_jax.data.task_forms import (
    PictureConversation,
    PlainText,
    ReasoningThenPicture,
    TextConversation,
    TextToImage,
)
from mammoth_jax.data.text_documents import TextDocuments

RecordSource = (
    Folder
    | Tars
    | Parquet
    | JsonRecords
    | AnnotationLists
    | TextDocuments
    | SyntheticDrawings
    | SyntheticEdits
    | SyntheticQuestions
    | SyntheticRiddles
    | SyntheticDocuments
)
Form = (
    PlainText
    | TextConversation
    | PictureConversation
    | TextToImage
    | Editing
    | EditingTurns
    | EditingChain
    | EditingConversation
    | ReasoningThenPicture
)
Join = FilePerKey | TableByKey


class ExampleSource(Protocol):
    """Examples of one task by number."""

    @property
    def name(self) -> str:
        """What messages and logs call the source."""
        ...

    @property
    def task(self) -> Task:
        """The task of all its examples."""
        ...

    @property
    def blocks(self) -> Sequence[int] | None:
        """Lengths of the runs of records that are read together, or None where each is read alone."""
        ...

    def __len__(self) -> int: ...

    def example(self, index: int, place: Place) -> Example:
        """Example number ``index``, as ``place`` draws it.

        Raises:
          UnreadableRecord: it cannot be used.
          Filtered: it is left out on purpose.
        """
        ...


class ExampleSourceConfig(Protocol):
    """What a configuration lists as a source of examples."""

    @property
    def weight(self) -> float:
        """Its part among the sources of its task."""
        ...

    def open(self, models: Mapping[str, str] = {}) -> ExampleSource:
        """The source; ``models`` are fingerprints by role, for precomputed arrays."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A source of one task.  Tasks of the synthetic world are forms themselves and need none.

    ``joins`` add fields that are kept apart from the data, by key; ``filters`` of fields decide; ``form`` makes the
    example; ``overrides`` replace its answers; the other filters decide.  ``weight`` is its part among the sources of
    its task.  ``encoded`` are codes and latents of the records' pictures, by the records' keys and the pictures' names.
    """

    source: RecordSource
    form: Form | None = None
    weight: float = 1.0
    joins: tuple[Join, ...] = ()
    overrides: AnswerOverrides | None = None
    filters: tuple[Filter, ...] = ()
    encoded: Precomputed | None = None

    def __post_init__(self) -> None:
        if (self.form is None) != isinstance(self.source, SyntheticTask):
            raise InputError(
                f"source {type(self.source).__name__}: "
                + (
                    "form says what its records are; give one"
                    if self.form is None
                    else "has a form of its own"
                )
            )

    @property
    def maker(self) -> TaskForm:
        """What makes its examples."""
        return cast(TaskForm, self.source) if self.form is None else self.form

    @property
    def task(self) -> Task:
        """The task of its examples."""
        return self.maker.task

    def open(self, models: Mapping[str, str] = {}) -> "OpenTaskSource":
        """Opens the source and what is read beside it; ``models`` are fingerprints by role, for ``encoded``.

        Raises:
          InputError: a file is missing, empty or of another form.
        """
        return OpenTaskSource(self, models)


class OpenTaskSource:
    """:class:`TaskSource`, open: an :class:`ExampleSource`."""

    def __init__(self, config: TaskSource, models: Mapping[str, str]):
        self._config = config
        self.task: Task = config.task
        given = config.source
        self._source: Source = given if isinstance(given, SyntheticTask) else given.open()
        if not len(self._source):
            raise InputError(f"source {self._source.name} is empty")
        self._joins = [join.open() for join in config.joins]
        self._overrides = None if config.overrides is None else config.overrides.open()
        self._encoded = None if config.encoded is None else config.encoded.open(models)
        keys = () if self._encoded is None else self._encoded.keys()
        self._rows = {key: row for row, key in enumerate(keys)}
        self.name = self._source.name
        sharded = self._source if isinstance(self._source, ShardedSource) else None
        self.blocks = None if sharded is None or sharded.blocks is None else tuple(sharded.blocks)
        self.files = 1 if sharded is None else sharded.files  # of a folder: itself
        self.problems: Mapping[str, str] = {} if sharded is None else sharded.problems

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int) -> Record:
        """Record number ``index`` with the fields of its joins.

        Raises:
          UnreadableRecord: it, or what is kept apart from it, cannot be read.
        """
        record = self._source[index]
        if not self._joins:
            return record
        found = [join.fields(record) for join in self._joins]
        fields = {name: value for each in (record.fields, *found) for name, value in each.items()}
        return dataclasses.replace(record, fields=fields)

    def example(self, index: int, place: Place) -> Example:
        """Example number ``index``, as ``place`` draws it.

        Raises:
          UnreadableRecord: it cannot be used.
          Filtered: a filter leaves it out, or it has no new answer where it needs one.
        """
        record = self.record(index)
        check_record(self._config.filters, record)
        example = self._config.maker.example(record, place)
        if self._overrides is not None:
            example = self._overrides.apply(record, example)
        check_example(self._config.filters, example)
        return self._attach(record, example)

    def _attach(self, record: Record, example: Example) -> Example:
        """The example with the codes and latents of those of its pictures that were encoded."""
        if self._encoded is None:
            return example
        stored, names = self._encoded, {id(p): name for name, p in record.named_pictures().items()}

        def known(picture: Picture) -> Picture:
            name = names.get(id(picture))
            row = None if name is None else self._rows.get(picture_key(record.key, name))
            if row is None:
                return picture
            arrays = stored[row].fields
            encoded = Encoded(arrays.get("codes"), arrays.get("mean"), arrays.get("logvar"))
            return dataclasses.replace(picture, encoded=encoded)

        turns = tuple(
            dataclasses.replace(
                turn, content=tuple(known(p) if isinstance(p, Picture) else p for p in turn.content)
            )
            for turn in example.turns
        )
        target = None if example.target is None else known(example.target)
        return dataclasses.replace(example, turns=turns, target=target)
