// A safetensors file of tensors whose bytes are taken as they are.
#ifndef CARAVAN_TESTS_SUPPORT_SAFETENSORS_WRITER_H_
#define CARAVAN_TESTS_SUPPORT_SAFETENSORS_WRITER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/strings.h"
#include "tests/support/torch_file_writer.h"

namespace caravan::testing {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

inline std::string SafetensorsFile(
    const std::vector<SafetensorsEntry>& entries) {
  nlohmann::json header;
  std::string data;
  for (const SafetensorsEntry& entry : entries) {
    const size_t begin = data.size();
    data += entry.bytes;
    header[entry.name] = {{"dtype", entry.dtype},
                          {"shape", entry.shape},
                          {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = DumpJson(header);
  return StrCat(Bytes(text.size(), 8), text, data);
}

}  // namespace caravan::testing

#endif  // CARAVAN_TESTS_SUPPORT_SAFETENSORS_WRITER_H_
