#include "tools/cli/report.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "tools/cli/job.h"

namespace switchback {

void ItemLines::add(std::string line) {
  if (count_++ < int64_t(kMost)) lines_.push_back(std::move(line));
}

void ItemLines::print() const {
  for (const std::string& line : lines_) print_line(line);
  if (count_ > int64_t(kMost)) print_line(fmt::format("  … and {} more", count_ - int64_t(kMost)));
}

Json document_of(const Job& job, const Report& report) {
  Json document = job.header();
  document["inputs"] = report.inputs;
  for (const auto& [path, why] : job.failed) document["failed"].push_back({{"path", path}, {"error", why}});
  if (!report.sheet.empty()) document["contact_sheet"] = report.sheet;
  document.update(report.details);
  return document;
}

void finish_run(Job& job, Output& output, Report report) {
  Json document = document_of(job, report);
  report.inputs = nullptr;  // they are in the document
  if (job.input_recorder) job.input_recorder->finish();
  output.commit(document);
  job.bar.clear();
  if (job.options.json) {
    document.update(report.times);
    job.add_footer(document);
    print_json(document);
  } else if (!job.options.quiet) {
    report.summary();
    for (const std::string& note : output.notes()) print_line(note);
  }
  if (job.failed.empty()) return;
  std::vector<std::string> paths;
  for (const auto& [path, why] : job.failed) paths.push_back(printable(path));
  throw Error(fmt::format("{} could not be read: {}", counted(int64_t(paths.size()), "input"), fmt::join(paths, ", ")),
              "the others are done; --strict stops at the first one");
}

void print_written(const Job& job, const std::vector<std::string>& paths, const std::string& sheet) {
  constexpr size_t kMostNamed = 4;
  if (paths.size() > kMostNamed)
    print_line(fmt::format("wrote {} into {}{}", counted(int64_t(paths.size()), "file"), job.options.output,
                           sheet.empty() ? "" : "; all on one sheet: " + sheet));
  for (const std::string& path : paths)
    if (paths.size() <= kMostNamed) print_line("wrote " + path);
}

std::string counted(int64_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : noun.ends_with('s') ? "es" : "s");
}

size_t peak_memory_bytes() {
  // Not getrusage's maximum: that survives exec, so it can be that of a large process which started this one.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return size_t(std::stoull(line.substr(6))) << 10;
  return 0;
}

namespace {

void print_text(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(fmt::format("cannot write to standard output: {}", std::strerror(errno)));
}

}  // namespace

void print_json(const Json& document) {
  print_text(document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void print_line(const std::string& line) { print_text(line + "\n"); }

std::string human_count(double value) {
  const char* units[] = {"", " k", " M", " G", " T", " P"};
  int unit = 0;
  while (std::abs(value) >= 1000 && unit < 5) value /= 1000, ++unit;
  if (unit == 0) return fmt::format("{:g}", std::round(value * 100) / 100);
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

std::string human_seconds(double seconds) {
  if (seconds < 1e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 1) return fmt::format("{:.1f} ms", seconds * 1e3);
  return fmt::format("{:.2f} s", seconds);
}

}  // namespace switchback
