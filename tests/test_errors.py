"""The error tree is a promise: names, parents, codes and exit codes are pinned here."""

import inspect

import pytest

from modelkeep import errors

EXIT_CODES = {
    "ModelkeepError": 1,
    "UsageError": 2,
    "InvalidRef": 2,
    "NotFound": 10,
    "StoreNotFound": 10,
    "ModelNotFound": 10,
    "VersionNotFound": 10,
    "AliasNotFound": 10,
    "RunNotFound": 10,
    "CheckpointNotFound": 10,
    "AlreadyExists": 11,
    "VersionExists": 11,
    "Conflict": 12,
    "IntegrityError": 20,
    "BlobMissing": 20,
    "LedgerDamaged": 20,
    "NotFaithful": 20,
    "UnsafeContent": 21,
    "LimitExceeded": 21,
    "CannotLoad": 22,
    "CannotRebuild": 22,
    "MissingCustomObjects": 22,
    "FormatTooNew": 22,
    "GateRefused": 23,
    "MissingExtra": 30,
    "StorageError": 31,
    "ObjectExists": 31,
}
BUILTIN_PARENTS = {
    "UsageError": ValueError,
    "NotFound": LookupError,
    "CannotRebuild": TypeError,
    "MissingExtra": ImportError,
    "StorageError": OSError,
}


def every_error():
    return {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.ModelkeepError)
    }


def test_the_tree_holds_exactly_these_errors_with_these_exit_codes():
    assert {name: error.exit_code for name, error in every_error().items()} == EXIT_CODES


def test_every_error_has_a_code_of_its_own():
    codes = [error.code for error in every_error().values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(("name", "parent"), BUILTIN_PARENTS.items())
def test_builtin_parents_are_kept(name, parent):
    assert issubclass(getattr(errors, name), parent)


def test_the_tree_drawn_in_the_docstring_names_every_error_with_its_exit_code():
    drawn = {}
    for line in errors.__doc__.splitlines():
        words = line.replace("│", " ").replace("├──", " ").replace("└──", " ").split()
        if words and words[0] in EXIT_CODES and words[0] != "ModelkeepError":
            drawn[words[0]] = next(int(word) for word in words if word.isdigit())
    assert drawn == {name: code for name, code in EXIT_CODES.items() if name != "ModelkeepError"}


def test_a_message_says_what_was_found_what_was_expected_and_the_next_step():
    error = errors.StorageError("the disk is full", found="2 MB free", expected="5 MB", hint="free some space")
    assert str(error) == "the disk is full: found 2 MB free, expected 5 MB\n  → free some space"
