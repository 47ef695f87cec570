#!/usr/bin/env python3
"""Tests of the house rules themselves, on small made-up trees."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import functions  # noqa: E402
import rules  # noqa: E402


def names(violations):
    return [rule for _, _, rule, _ in violations]


class RulesTest(unittest.TestCase):

    def test_a_gateway_file_may_not_include_the_worker(self):
        found = rules.include_arrows(
            {"gateway/a.cc": '#include "worker/engine/engine.h"\n'})
        self.assertEqual(names(found), ["include arrow"])

    def test_the_engine_may_not_include_the_model(self):
        found = rules.include_arrows(
            {"worker/engine/a.cc": '#include "worker/model/llama.h"\n'
                                   '#include "worker/kv/block_pool.h"\n'
                                   '#include "worker/kv/storage.h"\n'})
        self.assertEqual([v[1] for v in found], [1, 3])

    def test_grpc_headers_stay_at_the_border(self):
        include = '#include <grpcpp/server.h>\n'
        found = rules.library_headers({"gateway/pipeline.cc": include,
                                       "gateway/a_service.cc": include,
                                       "common/grpc/server.h": include})
        self.assertEqual([v[0] for v in found], ["gateway/pipeline.cc"])

    def test_guards_follow_the_path(self):
        good = ("#ifndef CARAVAN_COMMON_A_H_\n#define CARAVAN_COMMON_A_H_\n"
                "#endif  // CARAVAN_COMMON_A_H_\n")
        self.assertEqual(rules.include_guards({"common/a.h": good}), [])
        self.assertEqual(names(rules.include_guards({"common/b.h": good})),
                         ["include guard"])

    def test_sources_must_be_listed(self):
        sources = {"common/CMakeLists.txt": "SRCS status/a.cc bb.cc",
                   "common/status/a.cc": "", "common/bb.cc": "",
                   "common/b.cc": ""}
        found = rules.listed_in_cmake(sources)
        self.assertEqual([v[0] for v in found], ["common/b.cc"])

    def test_bans_ignore_comments_and_strings(self):
        found = rules.bans({"common/a.cc": '// std::endl\n"std::endl"\n'
                                           "x << std::endl;\n"})
        self.assertEqual([v[1] for v in found], [3])

    def test_each_ban_prints_its_replacement(self):
        text = ("using namespace std;\nt.detach();\ngetenv(a);\n"
                "sleep_for(1);\n// FIXME\n")
        found = rules.bans({"tests/a.cc": text})
        self.assertEqual(sorted(names(found)),
                         ["FIXME", "detach", "getenv", "sleep in a test",
                          "using namespace"])
        self.assertTrue(all(advice for _, _, _, advice in found))

    def test_metric_names_are_declared_once(self):
        found = rules.defined_once(
            {"gateway/a.cc": 'f("caravan_gateway_requests_total");\n',
             "common/metrics/names.h": '"caravan_gateway_requests_total"\n'})
        self.assertEqual([v[0] for v in found], ["gateway/a.cc"])

    def test_machine_paths_are_found(self):
        bad = "see /" + "root/x\n"
        found = rules.machine_paths({"common/a.md": bad,
                                     "common/b.md": "a network/root b\n"})
        self.assertEqual([v[0] for v in found], ["common/a.md"])


class FunctionsTest(unittest.TestCase):

    def test_lengths_of_functions_and_methods(self):
        text = ("namespace a {\nint F(int x) {\n  if (x) {\n  }\n}\n"
                "class B {\n  B() : c_{1} {}\n  void G() const {\n  }\n};\n"
                "const int kTable[] = {1, 2};\n}\n")
        self.assertEqual(list(functions.lengths(text)),
                         [("F", 4), ("B", 1), ("G", 2)])

    def test_a_brace_in_a_string_does_not_count(self):
        text = 'void F() {\n  Print("}}}{");\n}\nvoid G() {}\n'
        self.assertEqual([n for n, _ in functions.lengths(text)], ["F", "G"])


if __name__ == "__main__":
    unittest.main()
