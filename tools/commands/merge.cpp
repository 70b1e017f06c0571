// `switchback merge`: joins the parts that runs with --shard have written, and goes on as one run would.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "engine/files/files.h"
#include "tools/cli/resumable.h"
#include "tools/cli/shares.h"
#include "tools/commands/commands.h"

namespace switchback {
namespace {

struct MergeFlags {
  std::vector<std::string> parts;
  std::string output, device, threads;
  bool json = false, quiet = false;
};

// A command line without these options.
std::vector<std::string> without(std::span<const std::string> arguments, std::span<const std::string_view> flags,
                                 std::span<const std::string_view> with_values) {
  const auto is_in = [](std::span<const std::string_view> list, std::string_view word) {
    return std::ranges::find(list, word) != list.end();
  };
  std::vector<std::string> kept;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view word = arguments[i];
    if (is_in(flags, word)) continue;
    if (is_in(with_values, word)) {
      ++i;  // its value
    } else if (const size_t equals = word.find('='); equals == std::string_view::npos || !is_in(with_values, word.substr(0, equals))) {
      const bool joined = word.size() > 2 && word[0] == '-' && word[1] != '-' && is_in(with_values, word.substr(0, 2));  // -oDIR
      if (!joined) kept.emplace_back(word);
    }
  }
  return kept;
}

constexpr std::string_view kReports[] = {"--json", "--quiet"};
constexpr std::string_view kShard[] = {"--shard"};
constexpr std::string_view kFolder[] = {"-o", "--output"};
constexpr std::string_view kDevice[] = {"--device"}, kThreads[] = {"--threads"};
// Options in which the runs of one job may differ.
constexpr std::string_view kOfMachine[] = {"--shard", "-o", "--output", "--device", "--threads", "--batch", "--memory"};

std::vector<std::string> arguments_of(const PartHeader& part) { return part.about.at("arguments").get<std::vector<std::string>>(); }

// All of one run, each once; in their order.
std::vector<PartHeader> checked(std::vector<PartHeader> parts) {
  const auto what = [](const PartHeader& p) {
    return Json{{"shards", p.count()},
                {"command line", without(arguments_of(p), kReports, kOfMachine)},
                {"data or weights", p.about.at("about")},
                {"device", p.about.at("device")}};
  };
  std::ranges::stable_sort(parts, {}, &PartHeader::index);
  const PartHeader& first = parts[0];
  for (const PartHeader& p : parts)
    if (const Json a = what(first), b = what(p); a != b)
      throw Error(fmt::format("{} and {} are parts of different runs: they differ in {}", printable(first.path), printable(p.path),
                              differences(a, b)),
                  "merge joins the parts of one run");
  std::vector<int> missing;
  for (int index = 0; index < first.count(); ++index) {
    const auto [from, to] = std::ranges::equal_range(parts, index, {}, &PartHeader::index);
    if (to - from > 1)
      throw Error(fmt::format("{} and {} are both share {} of {}", printable(from->path), printable(from[1].path), index + 1,
                              first.count()),
                  "give each part once");
    if (from == to) missing.push_back(index + 1);
  }
  if (!missing.empty()) {
    const size_t shown = std::min<size_t>(missing.size(), 20);
    throw Error(fmt::format("of {} shares {} missing: {}{}", first.count(), missing.size() == 1 ? "one is" : fmt::format("{} are", missing.size()),
                            fmt::join(missing.begin(), missing.begin() + long(shown), ", "), shown < missing.size() ? ", …" : ""),
                "run these with --shard, or name their files, too");
  }
  return parts;
}

void run_merge(const MergeFlags& o) {
  if (o.parts.empty()) throw Error("no PART given", "runs with --shard I/N write them", true);
  std::vector<PartHeader> parts;
  for (const std::string& path : o.parts) parts.push_back(read_part_header(path));
  parts = checked(std::move(parts));
  // The command line of a run that is not divided.
  std::vector<std::string> arguments = without(arguments_of(parts[0]), {}, kShard);
  if (!o.output.empty()) {
    arguments = without(arguments, {}, kFolder);
    arguments.insert(arguments.end(), {"-o", o.output});
  }
  set_run_arguments(arguments);
  arguments = without(arguments, kReports, {});
  if (!o.device.empty()) arguments = without(arguments, {}, kDevice), arguments.insert(arguments.end(), {"--device", o.device});
  if (!o.threads.empty()) arguments = without(arguments, {}, kThreads), arguments.insert(arguments.end(), {"--threads", o.threads});
  if (o.json) arguments.push_back("--json");
  if (o.quiet) arguments.push_back("--quiet");
  shares().become_parts(std::move(parts));
  run_command_line(std::move(arguments));
}

}  // namespace

std::function<void()> setup_merge(CLI::App& app) {
  auto o = std::make_shared<MergeFlags>();
  app.add_option("PART", o->parts, "what the runs with --shard have written, all of one run");
  app.add_option("-o,--output", o->output, "folder for results (default: that of the runs)")->type_name("DIR");
  app.add_option("--device", o->device, "where what is left is computed (default: as the runs)")->type_name("auto|cpu|cuda[:N]");
  app.add_option("--threads", o->threads, "threads for it")->type_name("N");
  app.add_flag("--json", o->json, "print one JSON document instead of the summary");
  app.add_flag("--quiet", o->quiet, "print nothing");
  return [o] { run_merge(*o); };
}

}  // namespace switchback
