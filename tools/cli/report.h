// What a command tells of its run: one JSON document or a summary, and the words in both.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tools/cli/output.h"

namespace switchback {

struct Job;

// A line for each item of a run, of which a summary prints the first ones.
class ItemLines {
 public:
  void add(std::string line);
  void print() const;  // "… and 960 more"

 private:
  static constexpr size_t kMost = 40;
  std::vector<std::string> lines_;
  int64_t count_ = 0;
};

struct Report {
  Json inputs = Json::array();     // an entry for each item
  Json details = Json::object();   // the command's own fields
  Json times = Json::object();     // how long its stages took; not in files, which a second run gives again
  std::string sheet;               // the contact sheet, or ""
  std::function<void()> summary;   // prints it
};

// Commits the output and tells of the run, on stdout as --json and --quiet say.
void finish_run(Job& job, Output& output, Report report);
// The fields up to `inputs` and the command's own.
Json document_of(const Job& job, const Report& report);

// "wrote a.png", or of many files "wrote 7 files into out" and `sheet`.
void print_written(const Job& job, const std::vector<std::string>& paths, const std::string& sheet = "");
void print_json(const Json& document);  // one document on stdout
void print_line(const std::string& line);

// "1 image", "2 images", "2 classes".
std::string counted(int64_t count, std::string_view noun);
// 1234567 -> "1.23 M"; 0.0123 s -> "12.3 ms".
std::string human_count(double value);
std::string human_seconds(double seconds);
size_t peak_memory_bytes();

}  // namespace switchback
