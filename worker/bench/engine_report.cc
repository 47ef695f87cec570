#include "worker/bench/engine_report.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/json.h"
#include "common/strings.h"

namespace caravan::worker::bench {
namespace {

template <typename... Args>
std::string Format(const char* format, Args... args) {
  char line[256];
  std::snprintf(line, sizeof(line), format, args...);
  return line;
}

const char* Name(PointReport::Kind kind) {
  return kind == PointReport::Kind::kDecode ? "decode" : "prefill";
}

std::string HeadOf(const EngineBenchReport& report) {
  const MachineReport& machine = report.machine;
  std::string text = Format(
      "%s, %d threads, %.3f billion parameters (%s)\n"
      "a step reads %.3f GB of weights and %.1f KB per position\n",
      report.numerics_class.c_str(), report.threads,
      static_cast<double>(report.parameters) / 1e9, report.checkpoint.c_str(),
      report.step_bytes / 1e9, report.kv_position_bytes / 1e3);
  return text +
         Format(
             "this machine: %.1f GB/s (%s), fp32 %.0f, bf16 %.0f, int8 %.0f "
             "Gop/s (%s); bound by %s\n",
             machine.read.bytes_per_second / 1e9, machine.read.pattern.c_str(),
             machine.fp32 / 1e9, machine.bf16 / 1e9, machine.int8 / 1e9,
             machine.int8_instructions.c_str(),
             std::string(bench::Name(report.arithmetic)).c_str());
}

std::string LineOf(const LoadReport& load) {
  return Format(
      "loaded %.2f GB in %.2f s, %.1f x a copy at memory speed; at most %.2f "
      "GB "
      "resident, %.2f planned without KV\n",
      load.checkpoint_bytes / 1e9, load.seconds,
      load.seconds / load.floor_seconds, load.peak_bytes / 1e9,
      load.planned_bytes / 1e9);
}

std::string CliffLine(const EngineBenchReport& report) {
  if (report.cliffs.empty()) return "no cliff\n";
  std::string text = "cliff: throughput falls at";
  for (const Cliff& cliff : report.cliffs) {
    text += Format("%s %d streams (-%.1f %% of %d's)",
                   &cliff == report.cliffs.data() ? "" : ",", cliff.batch,
                   100 * cliff.loss, cliff.than_batch);
  }
  return text + "\n";
}

nlohmann::json ToJson(const PointReport& point) {
  return {{"kind", Name(point.kind)},
          {"streams", point.streams},
          {"prompt_tokens", point.prompt_tokens},
          {"samples", point.kept_count},
          {"dropped", point.dropped_count},
          {"complete", point.complete},
          {"tokens_per_second", point.tokens_per_second},
          {"spread", point.spread},
          {"step_seconds", point.step_seconds},
          {"bytes_per_second", point.bytes_per_second},
          {"operations_per_second", point.operations_per_second},
          {"read_ceiling", point.read_ceiling},
          {"operations_ceiling", point.operations_ceiling},
          {"read_share", point.read_share},
          {"operations_share", point.operations_share},
          {"bound_share", point.bound_share}};
}

nlohmann::json ToJson(const LoadReport& load) {
  return {{"seconds", load.seconds},
          {"floor_seconds", load.floor_seconds},
          {"checkpoint_bytes", load.checkpoint_bytes},
          {"packed_bytes", load.packed_bytes},
          {"planned_weight_bytes", load.planned_weight_bytes},
          {"planned_bytes", load.planned_bytes},
          {"peak_bytes", load.peak_bytes}};
}

nlohmann::json ToJson(const MachineReport& machine) {
  return {{"read_bytes_per_second", machine.read.bytes_per_second},
          {"read_pattern", machine.read.pattern},
          {"fp32_operations_per_second", machine.fp32},
          {"bf16_operations_per_second", machine.bf16},
          {"int8_operations_per_second", machine.int8},
          {"int8_instructions", machine.int8_instructions}};
}

}  // namespace

std::string LineOf(const PointReport& point) {
  return Format(
      "%-7s %3d x %5d: %8.1f tok/s +-%4.1f %%  step %8.2f ms  %5.1f GB/s = "
      "%3.0f %% of %4.1f  %6.1f Gop/s = %3.0f %% of %4.0f  bound %3.0f %%  "
      "%d of %d samples%s",
      Name(point.kind), point.streams, point.prompt_tokens,
      point.tokens_per_second, 100 * point.spread, 1e3 * point.step_seconds,
      point.bytes_per_second / 1e9, 100 * point.read_share,
      point.read_ceiling / 1e9, point.operations_per_second / 1e9,
      100 * point.operations_share, point.operations_ceiling / 1e9,
      100 * point.bound_share, point.kept_count,
      point.kept_count + point.dropped_count,
      point.complete ? "" : " (too few)");
}

std::string ToText(const EngineBenchReport& report) {
  std::string text = HeadOf(report) + LineOf(report.load);
  size_t batches = 0;
  for (const PointReport& point : report.points) {
    StrAppend(&text, LineOf(point), "\n");
    if (point.kind == PointReport::Kind::kDecode) ++batches;
  }
  for (const WholeReport& whole : report.whole) {
    text += Format(
        "whole   %3d streams: %8.1f tok/s with prefill, first token %.3f s\n",
        whole.streams, whole.tokens_per_second, whole.first_token_seconds);
  }
  return batches > 1 ? text + CliffLine(report) : text;
}

std::string ToJson(const EngineBenchReport& report) {
  nlohmann::json json = {{"numerics_class", report.numerics_class},
                         {"checkpoint", report.checkpoint},
                         {"threads", report.threads},
                         {"parameters", report.parameters},
                         {"arithmetic", bench::Name(report.arithmetic)},
                         {"step_bytes", report.step_bytes},
                         {"kv_position_bytes", report.kv_position_bytes},
                         {"prefill_operations", report.prefill_operations},
                         {"machine", ToJson(report.machine)},
                         {"load", ToJson(report.load)},
                         {"points", nlohmann::json::array()},
                         {"whole", nlohmann::json::array()},
                         {"cliffs", nlohmann::json::array()}};
  for (const PointReport& point : report.points) {
    json["points"].push_back(ToJson(point));
  }
  for (const WholeReport& whole : report.whole) {
    json["whole"].push_back(
        {{"streams", whole.streams},
         {"tokens_per_second", whole.tokens_per_second},
         {"first_token_seconds", whole.first_token_seconds}});
  }
  for (const Cliff& cliff : report.cliffs) {
    json["cliffs"].push_back({{"streams", cliff.batch},
                              {"than_streams", cliff.than_batch},
                              {"loss", cliff.loss}});
  }
  return DumpJson(json);
}

}  // namespace caravan::worker::bench
