#include "services/cli/supervisor.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <deque>
#include <set>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

// The loop looks at its children at least this often, also when their output
// says nothing about their end (a grandchild may hold the pipe open).
constexpr absl::Duration kLongestWait = absl::Milliseconds(100);
constexpr size_t kKeptLines = 8;
// For what was told last, after the grace.
constexpr absl::Duration kLastWait = absl::Seconds(2);

std::optional<int> PortOf(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == address.npos) return std::nullopt;
  const std::string_view digits = address.substr(colon + 1);
  int port = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return std::nullopt;
  }
  return port;
}

}  // namespace

struct Supervisor::Service {
  Service(const ServiceSpec& s, const BackoffOptions& b)
      : spec(s), backoff(b) {}

  ServiceSpec spec;
  RestartBackoff backoff;
  std::unique_ptr<ChildProcess> child;  // null while it pauses
  std::optional<LineReader> out;
  std::optional<LineReader> error;
  std::map<std::string, std::string> ready;  // fields of the last READY
  bool is_ready = false;
  bool was_ever_ready = false;
  std::optional<std::string> early_end;  // ended before it was ever ready
  absl::Time started_at;
  absl::Time restart_at;
  std::deque<std::string> last_lines;
};

std::optional<std::map<std::string, std::string>> ParseReadyLine(
    std::string_view line) {
  constexpr std::string_view kWord = "READY";
  if (line.substr(0, kWord.size()) != kWord) return std::nullopt;
  line.remove_prefix(kWord.size());
  std::map<std::string, std::string> fields;
  while (!line.empty()) {
    const size_t start = line.find_first_not_of(' ');
    if (start == line.npos) break;
    line.remove_prefix(start);
    const std::string_view word = line.substr(0, line.find(' '));
    line.remove_prefix(word.size());
    const size_t equals = word.find('=');
    if (equals == word.npos) return std::nullopt;
    fields.emplace(word.substr(0, equals), word.substr(equals + 1));
  }
  return fields;
}

Supervisor::Supervisor(const SupervisorOptions& options,
                       SupervisorEvents events)
    : options_(options), events_(std::move(events)) {}

Supervisor::~Supervisor() = default;

absl::Status Supervisor::Start(const ServiceSpec& spec) {
  services_.push_back(std::make_unique<Service>(spec, options_.backoff));
  return Launch(*services_.back());
}

absl::Status Supervisor::Launch(Service& service) {
  std::vector<std::string> arguments = service.spec.arguments;
  for (const PortFlag& flag : service.spec.ports) {
    arguments.push_back(flag.flag);
    arguments.push_back(StrCat(flag.port));
  }
  CARAVAN_ASSIGN_OR_RETURN(
      service.child,
      ChildProcess::Start(service.spec.program, arguments, group_));
  if (group_ == 0) group_ = service.child->pid();
  service.out.emplace(service.child->out_fd());
  service.error.emplace(service.child->error_fd());
  service.is_ready = false;
  service.started_at = options_.clock->Now();
  return absl::OkStatus();
}

absl::Status Supervisor::WaitUntilReady() {
  while (true) {
    CARAVAN_RETURN_IF_ERROR(FirstFailure());
    if (std::all_of(services_.begin(), services_.end(),
                    [](const auto& s) { return s->is_ready; })) {
      return absl::OkStatus();
    }
    PollOnce(kLongestWait);
    if (stop_asked_) return MakeError(Reason::kCancelled, "stopped");
  }
}

absl::Status Supervisor::FirstFailure() const {
  for (const auto& service : services_) {
    if (!service->early_end) continue;
    std::string message = StrCat(service->spec.name, " ended with ",
                                 *service->early_end, " before it was ready");
    for (const std::string& line : service->last_lines) {
      StrAppend(&message, "\n  ", line);
    }
    return MakeError(Reason::kInternal, message,
                     {{"service", service->spec.name}});
  }
  return absl::OkStatus();
}

void Supervisor::RunUntilStop() {
  while (!stop_asked_) PollOnce(kLongestWait);
}

bool Supervisor::Stop(absl::Duration grace) {
  stopping_ = true;
  const absl::Time deadline = options_.clock->Now() + grace;
  std::set<int> orders;
  for (const auto& service : services_) orders.insert(service->spec.stop_order);
  bool clean = true;
  for (const int order : orders) {
    const auto ends_now = [order](const Service& service) {
      return service.spec.stop_order <= order;
    };
    for (const auto& service : services_) {
      if (service->child && ends_now(*service)) service->child->Signal(SIGTERM);
    }
    const bool last = order == *orders.rbegin();
    clean = WaitForEnd(last ? deadline + kLastWait : deadline, ends_now);
  }
  services_.clear();  // kills what is left
  return clean;
}

bool Supervisor::WaitForEnd(absl::Time deadline,
                            const std::function<bool(const Service&)>& which) {
  while (true) {
    const bool running = std::any_of(
        services_.begin(), services_.end(),
        [&](const auto& s) { return which(*s) && s->child != nullptr; });
    if (!running) return true;
    const absl::Duration left = deadline - options_.clock->Now();
    if (left <= absl::ZeroDuration()) return false;
    PollOnce(std::min(left, kLongestWait));
  }
}

std::string Supervisor::Field(std::string_view service,
                              std::string_view field) const {
  for (const auto& s : services_) {
    if (s->spec.name != service) continue;
    const auto it = s->ready.find(std::string(field));
    return it == s->ready.end() ? "" : it->second;
  }
  return "";
}

void Supervisor::PollOnce(absl::Duration wait) {
  WaitForEvents(wait);
  for (const auto& service : services_) {
    if (service->child) ReadOutput(*service);
    if (service->child && service->child->Poll()) HandleEnd(*service);
    if (!service->child && !stopping_) RestartWhenDue(*service);
  }
}

void Supervisor::WaitForEvents(absl::Duration wait) {
  std::vector<pollfd> fds;
  if (options_.stop_fd >= 0 && !stop_asked_) {
    fds.push_back({options_.stop_fd, POLLIN, 0});
  }
  for (const auto& service : services_) {
    if (service->out) fds.push_back({service->child->out_fd(), POLLIN, 0});
    if (service->error) fds.push_back({service->child->error_fd(), POLLIN, 0});
  }
  const int wait_ms = static_cast<int>(absl::ToInt64Milliseconds(wait)) + 1;
  poll(fds.data(), fds.size(), wait_ms);
  if (options_.stop_fd >= 0 && !stop_asked_) {
    stop_asked_ = (fds.front().revents & POLLIN) != 0;
  }
}

void Supervisor::ReadOutput(Service& service) {
  for (std::optional<LineReader>* reader : {&service.out, &service.error}) {
    if (!*reader) continue;
    std::vector<std::string> lines;
    const bool open = (*reader)->Read(&lines);
    for (const std::string& line : lines) HandleLine(service, line);
    if (!open) reader->reset();
  }
}

void Supervisor::HandleLine(Service& service, const std::string& line) {
  const auto ready = ParseReadyLine(line);
  if (!ready) {
    service.last_lines.push_back(line);
    if (service.last_lines.size() > kKeptLines) service.last_lines.pop_front();
    if (events_.on_line) events_.on_line(service.spec, line);
    return;
  }
  service.ready = *ready;
  service.is_ready = service.was_ever_ready = true;
  for (PortFlag& flag : service.spec.ports) {
    const auto it = ready->find(flag.field);
    if (it == ready->end()) continue;
    if (const auto port = PortOf(it->second)) flag.port = *port;
  }
  if (events_.on_ready) {
    events_.on_ready(service.spec, service.child->pid(), service.ready);
  }
}

void Supervisor::HandleEnd(Service& service) {
  ReadOutput(service);  // what it wrote last
  const std::string how = *service.child->Poll();
  service.out.reset();
  service.error.reset();
  service.child.reset();
  service.is_ready = false;
  if (stopping_) return;
  const absl::Time now = options_.clock->Now();
  if (!service.was_ever_ready) {
    service.early_end = how;
    service.restart_at = absl::InfiniteFuture();
    return;
  }
  const absl::Duration pause =
      service.backoff.NextPause(now - service.started_at);
  service.restart_at = now + pause;
  if (events_.on_death) events_.on_death(service.spec, how, pause);
}

void Supervisor::RestartWhenDue(Service& service) {
  const absl::Time now = options_.clock->Now();
  if (now < service.restart_at) return;
  const absl::Status status = Launch(service);
  if (status.ok()) return;
  const absl::Duration pause = service.backoff.NextPause(absl::ZeroDuration());
  service.restart_at = now + pause;
  if (events_.on_death) {
    events_.on_death(service.spec, std::string(status.message()), pause);
  }
}

}  // namespace caravan::cli
