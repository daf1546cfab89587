"""A study's journal, damaged in generated ways: its sound beginning is kept, and nothing is lost without a word."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial

from cifarsweep.sweeper import journal as journals
from cifarsweep.sweeper import storage

optuna.logging.set_verbosity(optuna.logging.ERROR)


def search(journal: Path, first: int, last: int) -> None:
    """Trials with steps, attributes, pruned and failed ones."""
    study = optuna.create_study(study_name="x", storage=storage.open_storage(str(journal)), load_if_exists=True)
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    for number in range(first, last):
        trial = study.ask()
        trial.suggest_float("lr", 0.001, 1, log=True)
        trial.set_user_attr("run", f"run-{number}")
        trial.report(number / 2, 1)
        state = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL][
            0 if number % 5 else number % 3
        ]
        study.tell(trial, number / 4 if state == optuna.trial.TrialState.COMPLETE else None, state)


def finished(journal: Path) -> list[FrozenTrial]:
    store = storage.open_storage(str(journal))
    if "x" not in [study.study_name for study in store.get_all_studies()]:
        return []
    return [t for t in optuna.load_study(study_name="x", storage=store).trials if t.state.is_finished()]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of 8 trials."""
    path = tmp_path_factory.mktemp("sound") / "study.journal"
    search(path, 0, 8)
    return path


@pytest.fixture(scope="module")
def trials(sound: Path) -> list[FrozenTrial]:
    return finished(sound)


@pytest.fixture(scope="module")
def of_an_earlier_version(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without checksums."""
    path = tmp_path_factory.mktemp("earlier") / "study.journal"
    lines = sound.read_bytes().splitlines()
    path.write_bytes(b"".join(line.partition(journals.CHECKSUM)[0] + b"}\n" for line in lines))
    return path


def flip(content: bytes, place: int, bit: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def lines_changed(content: bytes, place: int, change: Callable[[list[bytes], int], None]) -> bytes:
    lines = content.splitlines(keepends=True)
    change(lines, place % len(lines))
    return b"".join(lines)


PLACES = st.integers(0, 10**6)
DAMAGES: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.builds(lambda place: lambda content: content[: place % len(content)], PLACES),
    st.builds(lambda place, bit: lambda content: flip(content, place, bit), PLACES, st.integers(0, 7)),
    st.builds(lambda place: lambda content: lines_changed(content, place, lambda lines, i: lines.pop(i)), PLACES),
    st.builds(
        lambda place, line: (
            lambda content: lines_changed(content, place, lambda lines, i: lines.insert(i, line.encode() + b"\n"))
        ),
        PLACES,
        st.sampled_from(["", "x", "{}", "[]", "null", '{"op_code":0}', '{"op_code":77}', "[" * 10_000, "\0" * 9])
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    ),
    st.builds(
        lambda place: lambda content: lines_changed(content, place, lambda lines, i: lines.insert(i, lines[i])), PLACES
    ),
    st.builds(lambda content: lambda _: content, st.binary(max_size=50)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGES)
def test_the_trials_before_a_damage_are_kept_as_they_were(
    tmp_path: Path, sound: Path, trials: list[FrozenTrial], damage: object
) -> None:
    journal, content = tmp_path / "study.journal", sound.read_bytes()
    journal.write_bytes(damaged := damage(content))  # type: ignore[operator]

    said = journals.mend(journal, tmp_path)
    kept = finished(journal)

    assert kept == trials[: len(kept)]
    undamaged = os.path.commonprefix([content, damaged])  # noqa: RUF071 -- of bytes, as is meant
    assert journal.read_bytes().startswith(undamaged[: undamaged.rfind(b"\n") + 1])
    if said is None:  # but for the line that a process was killed at, it ends where the journal once ended
        assert content.startswith(journal.read_bytes())
    else:
        aside = max(tmp_path.glob("*.corrupt"), key=lambda path: path.stat().st_mtime_ns)
        assert aside.name in said
        assert any(path.read_bytes() == damaged for path in tmp_path.glob("*.corrupt"))
    search(journal, len(kept), len(kept) + 2)
    assert journals.mend(journal, tmp_path) is None
    numbers = [trial.number for trial in finished(journal)]
    assert len(set(numbers)) == len(numbers)
    for path in tmp_path.glob("*.corrupt"):
        path.unlink()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGES)
def test_a_journal_without_checksums_is_read_or_set_aside(
    tmp_path: Path, of_an_earlier_version: Path, damage: Callable[[bytes], bytes]
) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes(damage(of_an_earlier_version.read_bytes()))

    journals.mend(journal, tmp_path)
    search(journal, 0, 2)

    assert journals.mend(journal, tmp_path) is None
    numbers = [trial.number for trial in finished(journal)]
    assert len(set(numbers)) == len(numbers)
    for path in tmp_path.glob("*.corrupt"):
        path.unlink()


def test_a_journal_of_an_earlier_version_goes_on_with_checksums(tmp_path: Path, of_an_earlier_version: Path) -> None:
    journal = tmp_path / "study.journal"
    shutil.copy(of_an_earlier_version, journal)
    before = finished(journal)
    search(journal, 8, 10)

    assert finished(journal)[:8] == before
    assert journals.mend(journal, tmp_path) is None
    content = journal.read_bytes()
    journal.write_bytes(flip(content, content.index(b"run-9") + 4, 0))
    assert journals.mend(journal, tmp_path) is not None
    assert finished(journal) == [*before, *finished(journal)[8:]]
    assert len(finished(journal)) == 9


@pytest.mark.slow  # Optuna waits 30 s for our lock's file before it removes it
def test_optuna_itself_reads_and_continues_a_journal(tmp_path: Path, sound: Path) -> None:
    journal = tmp_path / "study.journal"
    shutil.copy(sound, journal)
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    study = optuna.load_study(study_name="x", storage=optuna.storages.JournalStorage(backend))
    assert study.trials == finished(journal)
    study.set_user_attr("note", "by another tool")
    search(journal, 8, 9)

    assert journals.mend(journal, tmp_path) is None
    assert len(finished(journal)) == 9


@pytest.mark.parametrize("kind", ["folder", "fifo", "link", "dangling link", "text"])
def test_what_stands_in_a_journals_place_is_set_aside_in_the_sweeps_own_folder(
    tmp_path: Path, sound: Path, kind: str
) -> None:
    journal, elsewhere = tmp_path / "study.journal", tmp_path / "elsewhere"
    before = sound.read_bytes()
    make: dict[str, Callable[[], object]] = {
        "folder": journal.mkdir,
        "fifo": lambda: os.mkfifo(journal),
        "link": lambda: journal.symlink_to(sound),
        "dangling link": lambda: journal.symlink_to(elsewhere),
        "text": lambda: journal.write_text("the only copy of a poem\n"),
    }
    make[kind]()

    said = journals.mend(journal, tmp_path)

    assert said == f"{journal}: damaged, and set aside as study.journal.corrupt; the study begins anew"
    search(journal, 0, 1)
    assert sound.read_bytes() == before
    assert not elsewhere.exists()


def test_what_is_no_journal_stays_where_a_person_has_put_it(tmp_path: Path) -> None:
    poem = tmp_path / "poem.log"
    poem.write_text("the only copy\n")

    assert journals.mend(poem, tmp_path / "sweep") is None
    with pytest.raises(storage.Lost, match=r"poem\.log: not a journal"):
        storage.open_storage(str(poem))
    assert poem.read_text() == "the only copy\n"
