# SPDX-License-Identifier: Apache-2.0
"""Takes every argument of the base command, and lets any test id of the right form be asked for."""

import re

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


def pytest_generate_tests(metafunc):
    if "test_id" in metafunc.fixturenames:
        asked_for = filter(None, map(TEST.match, metafunc.config.args))
        wanted = [m["id"] for m in asked_for if m["function"] == metafunc.function.__name__]
        ids = list(dict.fromkeys(wanted))
        metafunc.parametrize("test_id", ids, ids=ids)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if config.option.test_prefix:
            item._nodeid = f"{config.option.test_prefix}/{item.nodeid}"
