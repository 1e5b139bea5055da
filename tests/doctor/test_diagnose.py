"""Running the checks: one that crashes costs nothing but itself."""

from bevrepro.core.finding import Severity
from bevrepro.core.machine import Host, Machine
from bevrepro.doctor.check import Check, fail, info
from bevrepro.doctor.diagnose import diagnose, failed


def check(id, judge):
    return Check(id, "host", "something", "It matters.", judge, ("https://example.org",))


def speaks(machine):
    yield fail(f"system {machine.host.system}", "Mend it.", "true", fixable=True)


def crashes(machine):
    yield info("said before the crash")
    raise ZeroDivisionError("division by zero")


def test_a_finding_carries_what_the_check_and_the_verdict_know():
    (finding,) = diagnose(Machine(host=Host(system="Plan 9")), [check("odd", speaks)])
    assert (finding.id, finding.family, finding.severity) == ("odd", "host", Severity.FAIL)
    assert (finding.seen, finding.why, finding.remedy) == ("system Plan 9", "It matters.", "Mend it.")
    assert (finding.commands, finding.links, finding.fixable) == (("true",), ("https://example.org",), True)


def test_a_check_that_crashes_becomes_a_finding_and_the_others_still_run():
    findings = diagnose(Machine(), [check("bad", crashes), check("good", speaks)])
    assert [each.id for each in findings] == ["check-crashed", "good"]
    assert "bad" in findings[0].seen and "ZeroDivisionError" in findings[0].seen


def test_only_a_fail_fails():
    assert failed(diagnose(Machine(), [check("odd", speaks)]))
    assert not failed(diagnose(Machine(), [check("bad", crashes)]))
