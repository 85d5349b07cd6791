"""The systems that the end-to-end tests talk to, each started on first use, one set per xdist worker."""

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Function) -> Iterator[None]:
    """A failure shows the end of the local run's log."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Stack):
                report.sections.append((f"log of the local run ({name})", value.run.log_end()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of who got how far, of the routes that the template has."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == "principals" and report.when == "call"
    ]
    if rows:
        terminalreporter.write_line("Every route of the template, called by:")
    for who, calls, answers in sorted(map(tuple, rows)):
        terminalreporter.write_line(f"  {who:<55} {calls:>4} calls: {answers}")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system; whoever takes a service away gives it back."""
    with Stack(tmp_path_factory.mktemp("stack")) as system:
        yield system
