// Encodes one file once, in a fresh process, and prints how long it took.
#include <stdlib.h>
#include <time.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "common/text/tokenizer.h"

namespace caravan::text {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of the whole process: other work on the machine does not count.
double CpuSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) +
         1e-9 * static_cast<double>(time.tv_nsec);
}

struct Options {
  std::string model;
  std::string text;
  std::string only;  // this file of the model alone
  EncodeOptions encode = {.add_special_tokens = false};
  int threads = 1;
};

bool Parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--no-word-cache") {
      options.encode.word_cache = false;
    } else if (i + 1 == argc) {
      return false;
    } else if (flag == "--model") {
      options.model = argv[++i];
    } else if (flag == "--text") {
      options.text = argv[++i];
    } else if (flag == "--only") {
      options.only = argv[++i];
    } else if (flag == "--threads") {
      options.threads = std::atoi(argv[++i]);
    } else {
      return false;
    }
  }
  return !options.model.empty() && !options.text.empty();
}

// A directory of its own with one file of the model, removed at the end.
class Alone {
 public:
  Alone(const std::string& model, const std::string& file) {
    std::string name =
        (fs::temp_directory_path() / "caravan_bench_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) return;
    path_ = name;
    std::error_code error;  // what is missing is told when it is loaded
    fs::create_symlink(fs::absolute(fs::path(model) / file),
                       fs::path(path_) / file, error);
  }
  Alone(const Alone&) = delete;
  Alone& operator=(const Alone&) = delete;
  ~Alone() {
    std::error_code error;
    if (!path_.empty()) fs::remove_all(path_, error);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;  // empty where there is none
};

int Main(int argc, char** argv) {
  Options options;
  if (!Parse(argc, argv, options)) {
    std::fprintf(stderr,
                 "usage: text_bench --model DIR --text FILE [--only FILE] "
                 "[--no-word-cache] [--threads N]\n");
    return 2;
  }
  // Ranks are a tokenizer.model; where there is a tokenizer.json too, that
  // would be taken.
  std::string only = options.only;
  if (only.empty()) only = "tokenizer.model";
  const Alone directory(options.model, only);
  Clock::time_point start = Clock::now();
  const double before_load = CpuSeconds();
  const auto tokenizer = Tokenizer::LoadDirectory(directory.path());
  const double load = CpuSeconds() - before_load;
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::ifstream file(options.text, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)),
                         std::istreambuf_iterator<char>());
  std::vector<size_t> counts(static_cast<size_t>(options.threads));
  const double cpu = CpuSeconds();
  start = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (size_t& count : counts) {
      threads.emplace_back([&] {
        const auto ids = (*tokenizer)->Encode(text, options.encode);
        count = ids.ok() ? ids->size() : 0;
      });
    }
  }
  std::printf(
      "{\"load_s\": %.6f, \"encode_s\": %.6f, \"wall_s\": %.6f, "
      "\"tokens\": %zu}\n",
      load, CpuSeconds() - cpu, SecondsSince(start), counts[0]);
  return counts[0] == 0 ? 1 : 0;
}

}  // namespace
}  // namespace caravan::text

int main(int argc, char** argv) { return caravan::text::Main(argc, argv); }
