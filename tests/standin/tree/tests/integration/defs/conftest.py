# SPDX-License-Identifier: Apache-2.0
"""Takes every argument of the base command, and lets any test id of the right form be asked for."""

import re
from pathlib import Path

import pytest

TEST = re.compile(r"^\s*(?:- )?\S+?::(?P<function>\w+)\[(?P<id>.+?)\](?=\s|$)")


def pytest_addoption(parser):
    group = parser.getgroup("standin", "stand-in for a perf test suite")

    def option(name, **how):
        try:
            group.addoption(name, **how)
        except ValueError:
            pass  # the real plugin of that option is installed and has it already

    option("--test-prefix", help="prefix of the test names in reports")
    option("--output-dir", help="directory for addresses and results, shared by all roles")
    option("--csv", help="CSV report, written by BENCHMARK")
    option("--test-list", help="file of tests to run, one MODULE::FUNCTION[ID] per line")
    option("--splits", type=int, default=1, help="number of shards")
    option("--group", type=int, default=1, help="the shard to run, from 1")
    option("--periodic-junit", action="store_true", help="write JUnit to --periodic-junit-xmlpath")
    option("--periodic-junit-xmlpath", help="JUnit file for --periodic-junit")
    for accepted in ("--periodic-interval", "--periodic-batch-size", "--cov-report", "--cov-config"):
        option(accepted, action="append", help="accepted, without effect")
    option("--periodic-save-unfinished-test", action="store_true", help="accepted, without effect")
    option("--cov", action="append", nargs="?", const=True, help="accepted, without effect")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if config.option.periodic_junit and not config.option.xmlpath:
        config.option.xmlpath = config.option.periodic_junit_xmlpath


def asked_for(config):
    """The MODULE::FUNCTION[ID] of the command line and of the test list."""
    lines = list(config.args)
    if config.option.test_list:
        lines += Path(config.option.test_list).read_text().splitlines()
    return filter(None, map(TEST.match, lines))


def pytest_generate_tests(metafunc):
    if "test_id" in metafunc.fixturenames:
        wanted = [m["id"] for m in asked_for(metafunc.config) if m["function"] == metafunc.function.__name__]
        ids = list(dict.fromkeys(wanted))
        metafunc.parametrize("test_id", ids, ids=ids)


def pytest_collection_modifyitems(config, items):
    splits, group = config.option.splits, config.option.group
    if not 1 <= group <= splits:
        raise pytest.UsageError(f"--group {group}: there are {splits} groups, counted from 1")
    kept = items[group - 1 :: splits]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept
    for item in items:
        if config.option.test_prefix:
            item._nodeid = f"{config.option.test_prefix}/{item.nodeid}"
