#include "gateway/http/sse_writer.h"

#include <charconv>

namespace caravan::gateway::http {

void AppendEvent(std::string_view json, std::string& out, std::string_view id) {
  if (!id.empty()) {
    out += "id: ";
    out += id;
    out += '\n';
  }
  out += "data: ";
  out += json;
  out += "\n\n";
}

void AppendDone(std::string& out) { out += "data: [DONE]\n\n"; }

std::string ChunkFrame(std::string_view bytes) {
  char size[16];
  const auto end =
      std::to_chars(size, size + sizeof(size), bytes.size(), 16).ptr;
  std::string frame(size, end);
  frame.reserve(frame.size() + bytes.size() + 4);
  frame += "\r\n";
  frame += bytes;
  frame += "\r\n";
  return frame;
}

}  // namespace caravan::gateway::http
