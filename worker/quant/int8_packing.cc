#include "worker/quant/int8_packing.h"

#include <cstring>

#include "worker/quant/weight_group.h"

namespace caravan::worker::quant {
namespace {

// Bytes of one vector in a group, and before each 8 groups.
struct FormatBytes {
  int64_t codes;
  int64_t scales;
  int64_t outer;
};

constexpr std::array<FormatBytes, kInt8Formats> kBytesOf = {{
    {512, 32, 0},   // kBytes
    {256, 32, 0},   // kNibbles
    {512, 64, 0},   // kBytesMin
    {256, 64, 0},   // kNibblesMin
    {512, 32, 64},  // kBytesOfK
    {256, 32, 64},  // kNibblesOfK
    {512, 32, 32},  // kBytesHalvesOfK
}};

const FormatBytes& BytesOf(Int8Format format) {
  return kBytesOf[static_cast<size_t>(format)];
}

bool HasNibbles(Int8Format format) { return BytesOf(format).codes == 256; }

bool HasMin(Int8Format format) {
  return format == Int8Format::kBytesMin || format == Int8Format::kNibblesMin ||
         format == Int8Format::kBytesOfK || format == Int8Format::kNibblesOfK;
}

// What is added to q to make a code of it.
int OffsetOf(Int8Format format) {
  switch (format) {
    case Int8Format::kBytes:
    case Int8Format::kBytesHalvesOfK:
      return 128;
    case Int8Format::kNibbles:
      return 8;
    default:
      return 0;
  }
}

// Where the parts of group `g` lie.
template <typename Bytes>
struct GroupPlace {
  Bytes* codes;
  Bytes* scales;
  Bytes* outer;

  GroupPlace(const VectorPlace& place, int64_t g, Bytes* panel) {
    const FormatBytes& bytes = BytesOf(place.format);
    const int64_t group = place.vectors * (bytes.codes + bytes.scales);
    const int64_t header = place.vectors * bytes.outer;
    outer = panel + g / kOuterGroups * (kOuterGroups * group + header);
    codes = outer + header + g % kOuterGroups * group;
    scales = codes + place.vectors * bytes.codes + place.vector * bytes.scales;
    codes += place.vector * bytes.codes;
    outer += place.vector * bytes.outer;
  }
};

void WriteCodes(Int8Format format, const WeightGroup& group, int lane,
                std::byte* codes) {
  const int offset = OffsetOf(format);
  std::array<uint8_t, kGroupElements> u;
  for (size_t i = 0; i < u.size(); ++i) {
    u[i] = static_cast<uint8_t>(group.q[i] + offset);
  }
  if (HasNibbles(format)) {
    for (size_t i = 0; i < 16; ++i) {
      u[i] = static_cast<uint8_t>(u[i] | u[i + 16] << 4);
    }
  }
  const int steps = HasNibbles(format) ? 4 : 8;
  for (int j = 0; j < steps; ++j) {
    std::memcpy(codes + 64 * j + 4 * lane, u.data() + 4 * j, 4);
  }
}

int ReadCode(Int8Format format, const std::byte* codes, int lane, int i) {
  const bool nibbles = HasNibbles(format);
  const int at = nibbles ? i % 16 : i;
  int code = std::to_integer<int>(codes[at / 4 * 64 + 4 * lane + at % 4]);
  if (nibbles) code = i < 16 ? code & 15 : code >> 4;
  return code - OffsetOf(format);
}

template <typename T>
void Put(T value, int lane, std::byte* lanes) {
  std::memcpy(lanes + lane * static_cast<int>(sizeof(T)), &value, sizeof(T));
}

template <typename T>
T Get(int lane, const std::byte* lanes) {
  T value;
  std::memcpy(&value, lanes + lane * static_cast<int>(sizeof(T)), sizeof(T));
  return value;
}

void WriteScales(Int8Format format, const WeightGroup& group, int lane,
                 const GroupPlace<std::byte>& place) {
  const bool two_levels = BytesOf(format).outer > 0;
  std::byte* const d = two_levels ? place.outer : place.scales;
  Put(group.d, lane, d);
  if (HasMin(format)) Put(group.m, lane, d + 32);
  if (!two_levels) return;
  Put(group.s[0], lane, place.scales);
  if (HasMin(format)) {
    Put(group.t, lane, place.scales + kLanes);
  } else {
    Put(group.s[1], lane, place.scales + kLanes);
  }
}

void ReadScales(Int8Format format, int lane,
                const GroupPlace<const std::byte>& place, WeightGroup& group) {
  const bool two_levels = BytesOf(format).outer > 0;
  const std::byte* const d = two_levels ? place.outer : place.scales;
  group.d = Get<uint16_t>(lane, d);
  if (HasMin(format)) group.m = Get<uint16_t>(lane, d + 32);
  group.t = 1;
  if (!two_levels) return;
  group.s[0] = group.s[1] = Get<int8_t>(lane, place.scales);
  if (HasMin(format)) {
    group.t = Get<uint8_t>(lane, place.scales + kLanes);
  } else {
    group.s[1] = Get<int8_t>(lane, place.scales + kLanes);
  }
}

}  // namespace

int64_t VectorBytes(Int8Format format, int64_t groups) {
  const FormatBytes& bytes = BytesOf(format);
  return groups * (bytes.codes + bytes.scales) +
         groups / kOuterGroups * bytes.outer;
}

void PackVector(WeightType type,
                const std::array<const std::byte*, kLanes>& rows,
                int64_t groups, const VectorPlace& place, std::byte* panel) {
  for (int64_t g = 0; g < groups; ++g) {
    const GroupPlace<std::byte> target(place, g, panel);
    for (int lane = 0; lane < kLanes; ++lane) {
      if (rows[lane] == nullptr) continue;
      const WeightGroup group = ReadGroup(type, rows[lane], g);
      WriteCodes(place.format, group, lane, target.codes);
      WriteScales(place.format, group, lane, target);
    }
  }
}

void UnpackRow(const VectorPlace& place, int lane, int64_t groups,
               const std::byte* panel, float* out) {
  for (int64_t g = 0; g < groups; ++g) {
    const GroupPlace<const std::byte> source(place, g, panel);
    WeightGroup group;
    ReadScales(place.format, lane, source, group);
    for (int i = 0; i < kGroupElements; ++i) {
      const int q = ReadCode(place.format, source.codes, lane, i);
      float value = group.scale(i / 16) * static_cast<float>(q);
      if (HasMin(place.format)) value += group.min();
      *out++ = value;
    }
  }
}

}  // namespace caravan::worker::quant
