"""Runs CPython's tests of ctypes and writes what came out, line by line, into the file argv[1]:

    plan NAME        for each test, before the first is run
    ok NAME
    skipped NAME
    failed NAME WHY
"""

import sys
import unittest

out = open(sys.argv[1], "w", buffering=1)


def say(*words):
    print(*(" ".join(word.split()) for word in words), file=out)


class Results(unittest.TestResult):
    """A test is what its worst part was."""

    def startTest(self, test):
        super().startTest(test)
        self.why = None

    def stopTest(self, test):
        super().stopTest(test)
        say(*(["failed", test.id(), self.why] if self.why else [self.outcome, test.id()]))

    def addSuccess(self, test):
        self.outcome = "ok"

    def addSkip(self, test, reason):
        self.outcome = "skipped"

    def addExpectedFailure(self, test, error):
        self.outcome = "ok"

    def addUnexpectedSuccess(self, test):
        self.why = "it was expected to fail"

    def addSubTest(self, test, subtest, error):
        if error:
            self.why = f"{subtest}: {error[1]!r}"

    def addError(self, test, error):
        self.why = repr(error[1])
        if not isinstance(test, unittest.TestCase):  # what stands around the tests of a class
            say("failed", test.id(), self.why)

    addFailure = addError


def each(suite):
    for test in suite:
        if isinstance(test, unittest.TestCase):
            yield test
        else:
            yield from each(test)


tests = unittest.defaultTestLoader.loadTestsFromName("test.test_ctypes")
for test in each(tests):
    say("plan", test.id())
tests.run(Results())
