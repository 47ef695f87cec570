// Frames of an event stream (text/event-stream over HTTP chunks).
#ifndef CARAVAN_GATEWAY_HTTP_SSE_WRITER_H_
#define CARAVAN_GATEWAY_HTTP_SSE_WRITER_H_

#include <string>
#include <string_view>

namespace caravan::gateway::http {

// "data: JSON\n\n", after "id: ID\n" unless `id` is empty. Neither has line
// breaks.
void AppendEvent(std::string_view json, std::string& out,
                 std::string_view id = {});

// "data: [DONE]\n\n": a clean end.
void AppendDone(std::string& out);

// `bytes` as one HTTP chunk; not empty.
std::string ChunkFrame(std::string_view bytes);

// The chunk that ends a body.
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace caravan::gateway::http

#endif  // CARAVAN_GATEWAY_HTTP_SSE_WRITER_H_
